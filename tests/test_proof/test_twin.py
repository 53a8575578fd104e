# Copyright (c) dms_razor contributors. All rights reserved.
"""A network that is not run in the self-check: a small twin is."""
import pytest
import torch
from equality import difference, keeps, randomise, reasons
from small_nets import Block, conv, widths
from torch import nn

from dms_razor.trace import trace

IMAGE = torch.rand(1, 3, 12, 12)


class Split(nn.Module):
    """Splits by a number of its own, and may count channels."""

    def __init__(self, width, counts=False):
        super().__init__()
        self.width, self.counts = width, counts
        self.first, self.last = conv(3, 2 * width), conv(width, width)

    def forward(self, x):
        a, b = self.first(x).relu().split(self.width, 1)
        out = self.last(a * b).relu()
        return out / out.shape[1] if self.counts else out


def net(width, **settings):
    """A network of any width."""
    return randomise(
        nn.Sequential(
            Split(width, **settings), Block(width), conv(width, 2 * width),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5)))


def test_what_holds_for_the_twin_holds():
    large = net(24)
    space = trace(
        large,
        torch.zeros(1, 3, 12, 12),
        twin=net(6),
        probe_inputs=torch.rand(1, 3, 7, 7))
    assert space.proof.network == 'a twin of Sequential'
    assert space.proof.units == len(space.units)
    alone = trace(large, IMAGE)
    assert widths(space) == widths(alone) and '2' in widths(space)
    assert space.attributes.keys() == alone.attributes.keys()
    for keep in keeps(space):
        assert difference(large, space, keep, IMAGE) < 1e-5


def test_what_does_not_hold_for_the_twin_stays():
    large = net(24, counts=True)
    space = trace(large, IMAGE, twin=net(6, counts=True))
    assert set(widths(space)) == set(widths(trace(large, IMAGE)))
    found = [r for r in reasons(space).values() if 'as in the twin' in r]
    assert found and 'pruning it changes what the network computes' in found[0]


def test_the_large_network_is_not_compared(monkeypatch):
    large, twin = net(24), net(6)
    ran = []
    for name, network in dict(large=large, twin=twin).items():
        network.register_forward_hook(lambda *_, name=name: ran.append(name))
    trace(large, IMAGE, twin=twin)
    # recorded, tried with gradients, watched for its memory, counted
    assert ran.count('large') == 4
    assert ran.count('twin') > 7


def test_strangers_are_refused():
    with pytest.raises(
            ValueError, match='at "5" it has ReLU, the network '
            'has Linear'):
        trace(net(24), IMAGE, twin=nn.Sequential(*net(6)[:5], nn.ReLU()))
    with pytest.raises(ValueError, match='at "5" it has nothing'):
        trace(net(24), IMAGE, twin=net(6)[:5])


def test_a_twin_is_checked():
    with pytest.raises(ValueError, match='twin= would have no effect'):
        trace(net(24), IMAGE, twin=net(6), check=False)
