# Copyright (c) dms_razor contributors. All rights reserved.
"""Attention of language models: rotary positions and shared keys."""
import pytest
import torch
from equality import assert_counts, difference, keeps
from language_nets import WORDS, Parallel, Turned, decoder, tied

from dms_razor.masking import attach, unmask
from dms_razor.network import run_model
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import record, trace

SHARING = {
    'multi-head': dict(),
    'as many dims as heads': dict(dims=4, heads=4, key_heads=4),
    'grouped': dict(heads=6, key_heads=2),
    'multi-query': dict(heads=3, key_heads=1),
    'normed': dict(norm=True),
    'normed, grouped': dict(heads=6, key_heads=3, norm=True),
}


def units_of(space):
    return {(unit.name, unit.size, unit.groups)
            for unit in space.units if unit.kind == 'heads'}


@pytest.mark.parametrize('how', ['sdpa', 'gqa', 'eager'])
@pytest.mark.parametrize('sharing', SHARING)
def test_heads_are_units_and_exports_are_equal(sharing, how):
    """The network under masks, the one that is cut, and its count."""
    settings = SHARING[sharing]
    net = decoder(how=how, **settings)
    space = trace(net, WORDS, batch_size=2)
    heads = settings.get('heads', 4)
    key_heads = settings.get('key_heads', 4)
    expected = set()
    for layer in range(2):
        name = f'layers.{layer}.attention'
        if key_heads > 1:
            expected.add((f'{name}.heads', key_heads, 1))
        if heads > key_heads:
            expected.add(
                (f'{name}.query_heads', heads // key_heads, key_heads))
    assert units_of(space) == expected
    assert {unit.kind for unit in space.units} >= {'width', 'depth', 'heads'}
    for keep in keeps(space, 3):
        assert difference(net, space, keep, WORDS) < 1e-12
        assert_counts(slice_model(net, space, keep), space, keep, WORDS)


def test_shared_keys_and_query_heads_by_hand():
    """Six query heads in two groups: one group and two heads in it stay."""
    net = decoder(heads=6, key_heads=2, layers=1)
    space = trace(net, WORDS, batch_size=2)
    keep = torch.ones(space.layout.E, dtype=torch.bool)
    names = [unit.name for unit in space.units]
    groups, inner = (
        space.layout.slice_of(names.index(f'layers.0.attention.{kind}'))
        for kind in ('heads', 'query_heads'))
    keep[groups.start] = False  # the first group
    keep[inner.start + 1] = False  # of it, which goes anyway
    keep[inner.start + 3] = False  # the first query head of the second
    attention = slice_model(net, space, keep).layers[0].attention
    old = net.layers[0].attention
    # rows of the heads 4 and 5, four dims each; keys of the second group
    assert torch.equal(attention.q_proj.weight, old.q_proj.weight[16:24])
    assert torch.equal(attention.k_proj.weight, old.k_proj.weight[4:])
    assert torch.equal(attention.v_proj.bias, old.v_proj.bias[4:])
    assert torch.equal(attention.o_proj.weight, old.o_proj.weight[:, 16:24])
    assert attention.num_key_value_groups == 2
    assert attention.layer_idx == 2 and attention.head_dim == 4


def test_masks_have_the_gradient_of_the_network():
    """Finite differences of every mask, between 0 and 1."""
    net = decoder(heads=4, key_heads=2, layers=1)
    space = trace(net, WORDS, batch_size=2)
    torch.manual_seed(0)
    masks = (.3 + .6 * torch.rand(space.layout.E)).double().requires_grad_()
    attach(net, space, lambda: masks)
    try:
        weights = torch.randn(2, 7, 31).double()

        def loss():
            return (net(WORDS) * weights).sum()

        gradient, = torch.autograd.grad(loss(), masks)
        for element in range(space.layout.E):
            with torch.no_grad():
                values = []
                for sign in (1, -1):
                    masks[element] += sign * 1e-6
                    values.append(float(loss()))
                    masks[element] -= sign * 1e-6
            found = (values[0] - values[1]) / 2e-6
            assert abs(found -
                       float(gradient[element])) < 1e-5 * max(1, abs(found))
    finally:
        unmask(net)


def test_what_meets_all_heads_alike_goes_with_channels_elsewhere():
    """No attention: a scale of each place shrinks with the channels."""

    class Net(torch.nn.Module):

        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(5, 12)
            self.scale = torch.nn.Parameter(torch.rand(4) + 1)
            self.last = torch.nn.Linear(12, 3)

        def forward(self, x):
            x = self.first(x).view(-1, 3, 4) * self.scale
            return self.last(x.reshape(len(x), -1))

    torch.manual_seed(0)
    net, x = Net().double(), torch.randn(1, 5).double()
    space = trace(net, x)
    assert [(u.name, u.size) for u in space.units] == [('first', 4)]
    for keep in keeps(space, 2):
        assert difference(net, space, keep, x) < 1e-12
        subnet = slice_model(net, space, keep)
        assert torch.equal(subnet.scale, net.scale[keep])
        assert subnet.first.out_features == 3 * int(keep.sum())


def test_words_are_no_constants():
    """A table that is looked up by the words depends on the input."""
    net = decoder(layers=1)
    recorder = record(net, (WORDS, ), run_model)
    node = next(n for n in recorder.nodes if n.op == 'embedding')
    assert not node.constant
    assert next(n for n in recorder.nodes if n.op == 'cos').constant


@pytest.mark.parametrize('layer', [Parallel, Turned])
def test_other_blocks_and_a_tied_head(layer):
    """Heads, the hidden size and depth; weights of two names stay one."""
    net = tied(layer)
    space = trace(net, WORDS, batch_size=2)
    found = {(unit.name, unit.kind, unit.size) for unit in space.units}
    assert {('words', 'width', 12), ('layers', 'depth', 2)} <= found
    for number in range(2):
        heads = [u for u in space.units if u.kind == 'heads']
        assert [u.size for u in heads] == [3, 3]
        assert heads[number].name.startswith(f'layers.{number}')
    for keep in keeps(space, 3):
        assert difference(net, space, keep, WORDS) < 1e-12
        subnet = slice_model(net, space, keep)
        assert subnet.head.weight is subnet.words.weight
        assert subnet.head.in_features == subnet.words.embedding_dim
        assert_counts(subnet, space, keep, WORDS)
