"""What all tests share: no more than two threads, so that the suite is a good neighbour and its figures are steady."""

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))
