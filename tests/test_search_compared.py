# Copyright (c) dms_razor contributors. All rights reserved.
"""A whole search with each selector that the paper's is compared with."""
import copy

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.core import SELECTORS

# Their numbers live on scales of their own, and so do steps.
RATES = dict(get=.1, mes=20., sns=20., unnormalised=.1)


@pytest.fixture
def data():
    return plain_data()


def searched(name, net, data, steps, **settings):
    settings = dict(dict(lr=RATES[name]), **settings)
    search = make_search(net, selector=name, target=.6, **settings)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, steps)
    return search, optimizer


@pytest.mark.parametrize('loss_weight', [1., 'auto'])
@pytest.mark.parametrize('name', RATES)
def test_it_searches_meets_its_budget_and_is_exported(name, loss_weight, data,
                                                      tmp_path):
    net = plain_net()
    search, _ = searched(
        name, net, data, 36, width_only_steps=6, loss_weight=loss_weight)
    bank = search.bank
    assert bank.depth_frozen and search.at_target
    assert search.current() < .8 * search.resource.supernet()
    if loss_weight == 'auto':  # every step ends on the target
        assert abs(search.current() / search.target - 1) < 1e-3
    kept, selection = search.project(), search.keep()
    cost = search.resource(kept.double(), selection.double()).item()
    assert .99 * search.target <= cost <= search.target

    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.manifest.macs['counted'] == round(cost)
    net.eval(), export.model.eval()
    with search.masks('subnet'), torch.no_grad():
        torch.testing.assert_close(
            export.model(data[0]), net(data[0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', RATES)
def test_a_resumed_search_is_the_unbroken_one(name, data, tmp_path):
    net = plain_net()
    through, optimizer = searched(name, net, data, 6)
    torch.save(through.state_dict(), tmp_path / 'search.pth')
    weights = copy.deepcopy(net.state_dict())
    train(through, optimizer, data, 5)

    other = plain_net()
    other.load_state_dict(weights)
    resumed, _ = searched(name, other, data, 0, seed=5)
    resumed.load_state_dict(
        torch.load(tmp_path / 'search.pth', weights_only=True),
        with_changes=True)  # of the seed
    optimizer = torch.optim.SGD(other.parameters(), lr=.05)
    resumed.attach(optimizer)
    train(resumed, optimizer, data, 5)
    for what in ('importance', 'order', 'masks'):
        assert getattr(resumed.bank, what).equal(getattr(through.bank, what))
    assert resumed.bank.selector.numbers.equal(through.bank.selector.numbers)


@pytest.mark.parametrize('name', RATES)
def test_the_preflight_knows_it(name):
    search = make_search(plain_net(), selector=name, loss_weight=1.)
    assert search.preflight().problem is None
    assert search.preflight().steps not in (None, make_search(
        plain_net()).preflight().steps)


@pytest.mark.parametrize('name', ['mes', 'sns'])
def test_leaps_of_the_preflight_are_fine_enough(name, monkeypatch):
    """Against leaps of a hundredth of a logit."""

    def steps():
        search = make_search(plain_net(), selector=name, loss_weight=1.)
        return search.preflight().steps

    leaps = steps()
    monkeypatch.setattr(SELECTORS[name], 'span', 1.)
    assert leaps == pytest.approx(steps(), rel=.2)
