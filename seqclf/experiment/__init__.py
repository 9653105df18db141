"""Experiments: settings, config files, losses and schedules."""
