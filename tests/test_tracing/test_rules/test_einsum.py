# Copyright (c) dms_razor contributors. All rights reserved.
"""``torch.einsum``; the truth is a sliced copy, and PyTorch's counter."""
import pytest
import torch
from equality import assert_true, reasons, unit_table
from small_nets import check, conv, widths
from torch import einsum, nn
from trained_nets import assert_true_in_training

from dms_razor.trace import trace

TOKENS = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(5))


def parameter(*shape):
    return nn.Parameter(
        torch.randn(shape, generator=torch.Generator().manual_seed(3)) * .3)


class Reading(nn.Module):
    """``fc``, what ``run(net, x)`` does with it and a parameter, ``head``."""

    def __init__(self, run, weight):
        super().__init__()
        self.run, self.weight = run, weight
        self.fc, self.head = nn.Linear(16, 24), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.run(self.fc(x), self.weight).relu())


@pytest.mark.parametrize('run,turned', [
    (lambda x, w: einsum('bnc,cd->bnd', x, w), False),
    (lambda x, w: einsum('dc, ...c -> ...d', w, x), True),
    (lambda x, w: einsum('nc...,dc->n...d', x.transpose(1, 2), w), True),
    (lambda x, w: einsum('bnc,cd', x, w).mT, False),
    (lambda x, w: einsum('bnc,dc->bnd', [x, w / 3]), True),
])
def test_a_parameter_in_any_letters_is_a_linear_layer(run, turned):
    weight = parameter(*((12, 24) if turned else (24, 12)))
    net = Reading(run, weight)
    space = assert_true(net, TOKENS, batch_size=2)
    assert widths(space) == {'fc': (24, 1), '': (12, 1)}
    assert set(reasons(space)) == {'head'}
    assert_true_in_training(net, TOKENS)


def test_channels_of_images():
    check(
        lambda net, x: net.out(einsum('bchw,cd->bdhw', x, net.weight)), {
            'stem': 16,
            '': 12,
            'out': 8
        },
        weight=parameter(16, 12),
        out=conv(12, 8))


class Attention(nn.Module):
    """Attention with a table of positions that all heads read.

    Args:
        product (Callable): Of two factors in letters.
        table (bool): Whether there is a table.
        biased (bool): Whether each head has a table of its own.
    """

    def __init__(self, product, table=False, own=False):
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.product, self.own, self.num_heads = product, own, 4
        if table:
            self.table = parameter(*[4] * own, 9, 9, 4)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads,
                                      -1).permute(2, 0, 3, 1, 4)
        scores = self.product('bhnd,bhmd->bhnm', q, k)
        if hasattr(self, 'table'):
            letters = 'hnmd' if self.own else 'nmd'
            scores = scores + einsum(f'bhnd,{letters}->bhnm', q, self.table)
        x = self.product('bhnm,bhmd->bnhd', scores.softmax(-1), v)
        return self.head(self.proj(x.reshape(B, N, -1)))


def by_matmul(letters, a, b):
    return a @ b.transpose(-1, -2) if letters.endswith('hnm') else (
        a @ b).transpose(1, 2)


def test_attention_in_letters_is_attention():
    spaces = [
        assert_true(Attention(product), TOKENS, batch_size=2)
        for product in (einsum, by_matmul)
    ]
    assert unit_table(spaces[0]) == unit_table(spaces[1])
    assert 'heads' in {unit.kind for unit in spaces[0].units}
    costs = [
        sorted((c.metric, c.coef, len(c.axes)) for c in s.resource.costs)
        for s in spaces
    ]
    assert costs[0] == costs[1]


def test_heads_that_read_one_table():
    space = assert_true(Attention(einsum, table=True), TOKENS, batch_size=2)
    kinds = unit_table(space)
    assert kinds['.heads'] == ('heads', 4, 1) and len(kinds) == 2, kinds
    assert 'table' not in space.slice_sites
    assert_true_in_training(Attention(einsum, table=True), TOKENS)


@pytest.mark.parametrize('run,size', [
    (lambda x, w: einsum('bnc,cd,de->bne', x, w,
                         w.t() @ w), 0),
    (lambda x, w: einsum('bnc,cd->nd', x, w), 0),
    (lambda x, w: einsum('bnc,c->bnc', x, w[:, 0]) @ w, 0),
    (lambda x, w: einsum('bnc,bnd->bcd', x, x).mean(1) @ w, 12),
    (lambda x, w: einsum('bnc,bmc->bnm', x, x) @ x @ w, 12),
])
def test_channels_of_what_is_not_understood_stay(run, size):
    net = Reading(run, parameter(24, 12))
    if not size:
        with pytest.raises(ValueError, match='nothing .*; fc:.*|fc: .*'):
            assert_true(net, TOKENS, batch_size=2)
    else:
        space = assert_true(net, TOKENS, batch_size=2)
        assert widths(space) == {'': (12, 1)} and 'fc' in reasons(space)


def test_two_channels_stay_at_least_where_letters_read_them():
    """PyTorch's counter takes a sum of one product for nothing."""
    net = Reading(lambda x, w: einsum('bnc,cd->bnd', x, w), parameter(24, 12))
    space = trace(net, TOKENS, batch_size=2)
    assert {u.name: u.least for u in space.units} == {'fc': 2, '': 1}
