# Copyright (c) dms_razor contributors. All rights reserved.
"""What the loops here share: data, a network and arguments, in your place.

Import it first: a torchvision of another build than torch's own, which timm,
Lightning and transformers import, is made to import by its last line but one.
"""
import argparse
from pathlib import Path
from typing import List

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from dms_razor.compat import shims

shims.torchvision_schemas()  # does nothing where torchvision imports


def arguments(text: str, name: str, epochs: int) -> argparse.Namespace:
    """What a loop is started with; a few of its epochs with ``--short``."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--short', action='store_true', help='a few epochs')
    parser.add_argument(
        '--out', type=Path, default=f'work_dirs/{name}', help='%(default)s')
    args = parser.parse_args()
    args.epochs = 6 if args.short else epochs
    return args


def make_data() -> List[TensorDataset]:
    """Digits of scikit-learn ``[N, 1, 8, 8]``; every third is for the test."""
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    test = torch.arange(len(labels)) % 3 == 0
    return [TensorDataset(images[i], labels[i]) for i in (~test, test)]


def make_network() -> nn.Module:
    """Four convolutions; nothing in it knows of a search."""

    def layer(before: int, after: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after), nn.ReLU())

    return nn.Sequential(
        layer(1, 32), layer(32, 32), layer(32, 64, 2), layer(64, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """Share of images that the network, in eval mode, gets right."""
    device = next(model.parameters(), torch.empty(0)).device
    images, labels = (part.to(device) for part in data.tensors)
    return (model.eval()(images).argmax(1) == labels).float().mean().item()
