"""Experiments: settings, config files, losses and schedules.

- the experiment: ``config``; config files: ``loading``, ``find_config``, ``sources``, ``rendering`` (writing)
- settings by name: ``settings``, ``values``, ``fingerprint`` (what a resumed run must share)
- ``losses``, ``binary_loss``, ``build_loss``; ``schedules``
"""
