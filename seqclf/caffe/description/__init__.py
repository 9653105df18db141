"""Descriptions of nets and solvers for the commands ``inspect``, ``draw`` and ``time``, and for the documentation.

- ``sketch``: nets and solvers without their data
- ``inspect``: shapes, parameters and operations; ``draw``: graphs; ``timing``: times of layers
- ``layers_table``: the table of layer types
"""
