# Copyright (c) dms_razor contributors. All rights reserved.
"""Operations without a rule: counted, and their channels stay."""
import torch
from small_nets import IMAGES, build, check, conv

from dms_razor.counting import count_macs
from dms_razor.trace import trace


def test_channels_that_an_operation_without_a_rule_touches_stay():
    reason = 'for which it is not known how channels pass through it'
    check(
        lambda net, x: net.out(net.more(torch.fft.fft(x, dim=1).real)), {
            'more': 12,
            'out': 8
        }, {'stem': reason},
        more=conv(16, 12),
        out=conv(12, 8))


def test_what_it_costs_is_counted():
    """A product of three tensors by einsum, 4 · 5 · 6 MACs a sample."""
    net = build(
        lambda net, x: net.out(x) + torch.einsum(
            'ab,bc->ac', torch.ones(4, 5).to(x), torch.ones(5, 6).to(x)).sum(),
        out=conv(16, 8))
    space = trace(net, IMAGES[:1])
    whole = space.resource(space.layout.size, torch.ones(space.layout.E),
                           'macs')
    assert float(whole) <= count_macs(net, IMAGES[:1]).total
