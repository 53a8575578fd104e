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


def products(net, x):
    """Of all channels with each other, by an operation without a rule."""
    rows = x.flatten(2)
    added = rows.new_zeros(len(x), 16, 16)
    return net.out(x) + torch.baddbmm(added, rows, rows.transpose(1, 2)).sum()


def test_what_it_costs_is_counted():
    net = build(products, out=conv(16, 8))
    image = IMAGES[:1]
    space = trace(net, image)
    found = space.resource(space.layout.size,
                           torch.ones(space.layout.E).double(), 'macs')
    positions = image[0, 0].numel()
    by_hand = positions * 9 * (3 * 16 + 16 * 8) + 16 * 16 * positions
    assert count_macs(net, image).macs == float(found)
    assert float(found) == by_hand + net.head.weight.numel()
