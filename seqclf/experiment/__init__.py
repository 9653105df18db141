"""What a run is made of: the experiment, its settings, losses and schedules."""
