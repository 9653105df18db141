"""Programs start fast: they import only what they use."""

import subprocess
import sys

import pytest
import torch

STEPS = """
import torch
def steps():
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "LBFGS"):
        x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = getattr(torch.optim, name)([x], lr=0.1)
        called = []
        optimizer.register_step_post_hook(lambda *arguments: called.append(1))
        def loss():
            optimizer.zero_grad()
            value = (x ** 4).sum()
            value.backward()
            return value
        for _ in range(3):
            optimizer.load_state_dict(optimizer.state_dict())
            optimizer.step(loss)
        yield name, x.tolist(), len(called)
"""


@pytest.mark.slow
def test_optimizers_of_a_program_work_without_importing_dynamo():
    main = """
import sys
from seqclf.runtime.optimizers import leave_out_dynamo
leave_out_dynamo()
print(list(steps()), "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", STEPS + main], capture_output=True, text=True, check=True)
    own = {"torch": torch}
    exec(STEPS, own)
    assert done.stdout == f"{list(own['steps']())} False\n"
