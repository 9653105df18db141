"""The plain script that ``seqclf train`` is measured against, as one writes it after reading a tutorial.

python -m seqclf.benchmark.plain --root <folder of MNIST/raw> --steps 3000 --device cpu
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 100, 3, batch_first=True)
        self.fc = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.lstm(x)[0][:, -1])
        return logits


def main(root: str, steps: int, device: str) -> None:
    train_set = datasets.MNIST(root, train=True, transform=transforms.ToTensor())
    test_set = datasets.MNIST(root, train=False, transform=transforms.ToTensor())
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=1000)
    net = Net().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = 0
    while step < steps:
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images.view(-1, 28, 28)), labels)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 500 == 0 or step == steps:
                correct = 0
                with torch.no_grad():
                    for images, labels in test_loader:
                        images, labels = images.to(device), labels.to(device)
                        correct += int((net(images.view(-1, 28, 28)).argmax(1) == labels).sum())
                print(f"step {step}  loss {loss.item():.4f}  accuracy {correct / len(test_set):.2%}", flush=True)
            if step == steps:
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--device", default="cpu")
    main(**vars(parser.parse_args()))
