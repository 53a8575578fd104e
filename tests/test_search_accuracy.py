# Copyright (c) dms_razor contributors. All rights reserved.
"""A search does not disturb a trained network before it prunes it."""
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from dms_razor import Search


def conv(inside, outside, stride=1):
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outside), nn.ReLU())


class Block(nn.Module):

    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)[:2]

    def forward(self, x):
        return F.relu(x + self.conv2(self.conv1(x)))


@pytest.fixture(scope='module')
def digits():
    """Training and test images of real handwritten digits."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(data.target)
    return (images[:1200], labels[:1200]), (images[1200:], labels[1200:])


def shifted(images, down, right):
    """Images moved by up to a pixel; (1, 1) leaves them where they are."""
    padded = F.pad(images, (1, 1, 1, 1), value=-1.)
    return padded[..., down:down + 8, right:right + 8]


@pytest.fixture(scope='module')
def trained(digits):
    """A residual network of 32 and 64 channels, trained for 48 epochs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        conv(1, 32), Block(32), Block(32), conv(32, 64, 2), Block(64),
        Block(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(
        net.parameters(), lr=.1, momentum=.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 900)
    for images, labels in batches(digits[0], 900):
        images = shifted(images, *torch.randint(3, (2, )).tolist())
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def batches(data, steps, size=64):
    for step in range(steps):
        pick = torch.randint(len(data[0]), (size, ))
        yield data[0][pick], data[1][pick]


@torch.no_grad()
def top1(net, data):
    return 100 * (net(data[0]).argmax(1) == data[1]).float().mean().item()


@pytest.mark.parametrize('lr', [5e-3, 5e-2])
def test_fifty_steps_to_just_below_the_supernet(trained, digits, lr):
    before = top1(trained, digits[1])
    assert before > 95
    for seed in range(5):
        torch.manual_seed(seed)
        search = Search(
            trained, digits[0][0][:1], target=.98, total_steps=50, lr=lr)
        for images, labels in batches(digits[0], 50):
            search.loss(F.cross_entropy(trained(images), labels)).backward()
            search.step()  # the ratios alone: no optimizer, BatchNorm in eval
        assert search.bank.ratios.max() > .003
        assert abs(top1(trained, digits[1]) - before) <= .5
        search.bank.set_kept(search.project())
        with search.masks('hard'):  # whole channels gone, nothing retrained
            assert abs(top1(trained, digits[1]) - before) <= 1.5
        search.close()
        assert top1(trained, digits[1]) == before
