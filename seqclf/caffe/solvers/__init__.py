"""Solvers: training of nets as Caffe does it.

- ``solver``: the training loop; ``files``: solvers from files; ``nets``: the train and test nets
- ``snapshot``: the state of a solver in files
- ``optimizer``: what all optimizers do in a step; ``update_rules``: SGD, Adam and the others
"""
