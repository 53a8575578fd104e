# Copyright (c) dms_razor contributors. All rights reserved.
"""The even cut, against a network that is narrowed by hand."""
import pytest
import torch
from torch import nn
from toy_nets import make_search, plain_net

from dms_razor.counting import count_macs
from dms_razor.subnet.even import even_share
from dms_razor.trace import trace

IMAGES = torch.zeros(1, 3, 8, 8)


def chain(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 3))


def test_a_chain():
    """Its MACs are proportional to its one width."""
    space = trace(chain(20), IMAGES)
    for width in (5, 12, 20):
        macs = count_macs(chain(width), IMAGES).total
        assert even_share(space, dict(macs=macs)) == pytest.approx(width / 20)
    assert even_share(space, dict(macs=10 * macs)) == 1


class Twice(nn.Module):
    """Three widths."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 10, 1), nn.ReLU(), nn.Conv2d(10, 20, 1), nn.ReLU(),
            nn.Conv2d(20, 5, 1))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize('share', [.25, .5, .9])
def test_all_widths_alike(share):
    macs = 64 * (3 * 10 * share + 10 * 20 * share**2 + 20 * 5 * share)
    space = trace(Twice(), IMAGES)
    assert even_share(space, dict(macs=macs)) == pytest.approx(share)


def test_bounds_are_kept():
    space = trace(
        Twice(), IMAGES, units={'layers.2': dict(least=16)}, batch_size=1)
    macs = 64 * (3 * 10 * .5 + 10 * .5 * 16 + 16 * 5)
    assert even_share(space, dict(macs=macs)) == pytest.approx(.5)


def test_where_there_is_none():
    space = make_search(plain_net()).space
    assert even_share(space, dict(macs=1.)) is None, 'blocks have to go'
    depth = make_search(plain_net(), width=False).space
    assert even_share(depth, dict(macs=.5 * depth.resource.supernet())) is None


@pytest.mark.parametrize('target', [.4, .8])
def test_a_report_says_it(tmp_path, target):
    search = make_search(plain_net(), target=target)
    report = search.export(tmp_path / 'subnet').report
    assert report.even == even_share(search.space, dict(macs=search.target))
    assert report.to_dict()['even'] == report.even
