# Copyright (c) dms_razor contributors. All rights reserved.
"""The plain-Python examples of README and docs, run as they are printed."""
import json
import re
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

REPO = Path(__file__).resolve().parents[1]


class Block(nn.Module):
    """Written by hand, as somebody would who knows PyTorch alone."""

    def __init__(self, width):
        super().__init__()
        self.widen = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.narrow = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, x):
        return F.relu(x + self.narrow(F.relu(self.norm(self.widen(x)))))


class Net(nn.Module):

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.blocks = nn.Sequential(Block(12), Block(12))
        self.classes = nn.Linear(12, 10)

    def forward(self, x):
        return self.classes(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def example(page):
    """The first block of Python on a page that makes a search."""
    text = (REPO / page).read_text(encoding='utf-8')
    blocks = re.findall('```python\n(.*?)```', text, re.DOTALL)
    return next(block for block in blocks if 'Search(model' in block)


@pytest.mark.parametrize('page, steps, epochs',
                         [('README.md', 900, 3),
                          ('docs/en/plain_python.md', 1000, 1)])
def test_the_example_runs_as_printed(page, steps, epochs, tmp_path,
                                     monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8
    pictures, labels = pictures - 1, torch.tensor(digits.target)
    batches = torch.randint(len(labels), (steps, 8))
    model = Net()
    whole = sum(parameter.numel() for parameter in model.parameters())
    names = dict(
        model=model,
        images=pictures,
        loader=[(pictures[batch], labels[batch])
                for batch in batches[:steps // epochs]],
        epochs=epochs,
        criterion=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=.05))
    exec(example(page), names)

    search, subnet = names['search'], names['subnet']
    assert search.bank.updates == search.step_count == steps
    assert search.bank.ratios.std() > .01
    cost = json.loads((tmp_path / 'subnet' / 'report.json').read_text())
    assert .99 * search.target <= cost['macs']['counted'] <= search.target
    assert sum(p.numel() for p in subnet.parameters()) < .6 * whole
    with torch.no_grad(), search.masks('subnet'):
        torch.testing.assert_close(subnet.eval()(pictures),
                                   model.eval()(pictures))
