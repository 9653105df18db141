"""What all tests share: two threads, or one in each of several processes of tests and what these start."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when PyTorch is imported

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))
