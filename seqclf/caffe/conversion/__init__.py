"""Conversion of nets to classifiers, and of classifiers to nets.

- ``net_to_classifier``: uses ``lrcn`` (the parts of the net) and ``layers_to_modules`` (its encoder)
- ``classifier_to_net``: uses ``modules_to_layers``
- ``run``: writes a run folder of a converted net
"""
