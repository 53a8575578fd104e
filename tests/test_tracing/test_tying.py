# Copyright (c) dms_razor contributors. All rights reserved.
"""One ratio for all layers of a kind."""
import pytest
import torch
from equality import assert_counts, difference, keeps
from language_nets import WORDS, decoder
from torch import nn

from dms_razor import Search
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace


def net():
    return decoder(heads=6, key_heads=3, layers=3)


@pytest.fixture(scope='module')
def spaces():
    return {
        layers: trace(net(), WORDS, batch_size=2, layers=layers)
        for layers in ('free', 'tied')
    }


def test_units_of_layers_become_one(spaces):
    found = {(u.name, u.kind, u.size, u.groups) for u in spaces['tied'].units}
    assert found == {
        ('words', 'width', 12, 1),
        ('layers.*.gate', 'width', 20, 3),
        ('layers.*.attention.heads', 'heads', 3, 3),
        ('layers.*.attention.query_heads', 'heads', 2, 9),
        ('layers', 'depth', 3, 1),
    }
    members = {u.name: u.members for u in spaces['tied'].units}
    assert members['layers.*.attention.heads'] == tuple(f'layers.{n}.attention'
                                                        for n in range(3))
    made = spaces['tied'].producers['layers.*.gate']
    assert ('layers.2.up', 'Linear') in made and len(made) == 6


def test_equal_exports_of_equal_layers(spaces):
    """Elements of each layer are its own, and the same number of them."""
    space, model = spaces['tied'], net()
    for keep in keeps(space, 3):
        assert difference(model, space, keep, WORDS) < 1e-12
        subnet = slice_model(model, space, keep)
        assert_counts(subnet, space, keep, WORDS)
        sizes = {
            tuple(p.shape for p in layer.parameters())
            for layer in subnet.layers
            if isinstance(layer, type(model.layers[0]))
        }
        assert len(sizes) <= 1


def test_costs_and_gradients_are_those_of_the_free_space(spaces):
    """At equal counts; a tied count moves those of all its layers."""
    free, tied = spaces['free'], spaces['tied']
    torch.manual_seed(0)
    ratios = {
        unit.name: float(share)
        for unit, share in zip(tied.units, torch.rand(len(tied.units)))
    }

    def pattern(name):
        return '.'.join('*' if x.isdigit() else x for x in name.split('.'))

    def counts(space):
        return torch.tensor([
            u.size * ratios[u.name if u.name in ratios else pattern(u.name)]
            for u in space.units
        ]).double().requires_grad_()

    for metric in ('macs', 'params'):
        one, other = counts(tied), counts(free)
        masks = [
            torch.full((space.layout.E, ), .7).double()
            for space in (tied, free)
        ]
        value = tied.resource(one, masks[0], metric)
        expected = free.resource(other, masks[1], metric)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        slope, = torch.autograd.grad(value, one)
        slopes, = torch.autograd.grad(expected, other)
        for number, unit in enumerate(tied.units):
            total = sum(
                float(slopes[n]) for n, u in enumerate(free.units)
                if unit.name in (u.name, pattern(u.name)))
            assert float(slope[number]) == pytest.approx(total, rel=1e-9)


def test_a_search_and_its_export(tmp_path):
    model = net().float()
    search = Search(
        model,
        WORDS[:1],
        '60%',
        metric='params',
        total_steps=20,
        layers='tied',
        depth=False)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    search.attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        search.loss(model(WORDS).square().mean()).backward()
        optimizer.step()
    export = search.export(tmp_path / 'subnet', picture=False)
    params = export.manifest.params
    assert .97 * .6 < params['counted'] / params['supernet'] <= .6
    layers = [[p.shape for p in x.parameters()] for x in export.model.layers]
    assert layers[0] == layers[1] == layers[2]
    with search.masks('subnet'):
        masked = model.eval()(WORDS)
    assert torch.allclose(masked, export.model.eval()(WORDS), atol=1e-5)


class Stack(nn.Module):
    """Layers of two sizes; ``twice`` of each, or one."""

    def __init__(self, twice):
        super().__init__()
        widths = (8, 8, 10, 10) if twice else (8, 10)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(6, n), nn.ReLU(), nn.Linear(n, 6))
            for n in widths)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_other_sizes_are_other_units():
    space = trace(
        Stack(True), torch.rand(1, 6), layers='tied', only='layers.*.0')
    assert [(u.name, u.size, u.groups)
            for u in space.units] == [('layers.*.0', 8, 2),
                                      ('layers.*.0[1]', 10, 2)]


def test_what_cannot_be_tied_is_refused():
    with pytest.raises(ValueError, match="ties nothing.*Use 'free'"):
        trace(Stack(False), torch.rand(1, 6), layers='tied')
    with pytest.raises(ValueError, match="layers='both' is not known"):
        trace(Stack(False), torch.rand(1, 6), layers='both')
