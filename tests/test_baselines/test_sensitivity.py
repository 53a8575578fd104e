# Copyright (c) dms_razor contributors. All rights reserved.
"""Taylor scores, against gradients of hand-made gates at the activations."""
import copy

import pytest
import torch

from dms_razor.baselines import METHODS, comparable
from .helpers import INPUTS, loss, make_search

BATCHES = (INPUTS[:2], INPUTS[2:5])


def taylor(search, batches=BATCHES, loss=loss):
    return METHODS.find('taylor')(search, batches, loss)


def by_hand(net, layout, batch):
    """Gradient of the loss in factors of what layers read, ``[E]``."""
    gates = torch.ones(layout.E, requires_grad=True)
    part = {
        unit.name: gates[layout.slice_of(u)]
        for u, unit in enumerate(layout.units)
    }
    depth = next(part[u.name] for u in layout.units if u.kind == 'depth')
    x = torch.relu(net.stem(batch))
    for i, block in enumerate(net.blocks):
        hidden = torch.relu(block.up(x * part['stem']))
        x = torch.relu(x +
                       depth[i] * block.down(hidden * part[f'blocks.{i}.up']))
    x = torch.relu(net.mid(x * part['stem'])) * part['mid']
    return torch.autograd.grad(net.head(x).square().mean(), gates)[0].double()


def test_squares_of_the_gradient_add_up_over_batches():
    search = make_search()
    net = copy.deepcopy(make_search().close())
    layout = search.space.layout
    wanted = sum(by_hand(net, layout, batch).square() for batch in BATCHES)
    torch.testing.assert_close(
        taylor(search), comparable(wanted, layout), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('name', ['dms', 'get', 'unnormalised'])
def test_masks_are_1_whatever_the_search_has(name):
    search, other = make_search(), make_search(selector=name)
    other.bank.set_kept(other.bank.layout.least)
    torch.testing.assert_close(taylor(search), taylor(other))


def test_nothing_of_the_network_changes():
    search = make_search()
    net = search.model
    net.stem.weight.grad = torch.ones_like(net.stem.weight)
    before, masks = copy.deepcopy(net.state_dict()), search.bank.masks
    random = torch.get_rng_state()
    taylor(search)
    assert net.training and search.bank.masks is masks
    assert search.bank.masks.grad is None and net.head.weight.grad is None
    assert (net.stem.weight.grad == 1).all()
    assert torch.get_rng_state().equal(random)
    for name, value in net.state_dict().items():
        assert value.equal(before[name])


def test_what_is_missing_is_told():
    search = make_search()
    source = search.reader.source
    with pytest.raises(ValueError, match="'taylor' needs batches="):
        taylor(search, batches=None)
    with pytest.raises(ValueError, match="'taylor' needs loss="):
        taylor(search, loss=None)
    with pytest.raises(ValueError, match='got no batch'):
        taylor(search, batches=[])
    for useless in (lambda model, batch: batch.sum(),
                    lambda model, batch: model.head.weight.sum() * 2.):
        with pytest.raises(ValueError, match='no gradient in the masks'):
            taylor(search, loss=useless)
    assert search.reader.source is source
