# Copyright (c) dms_razor contributors. All rights reserved.
"""What can be read off a search."""
import copy

import pytest
import torch
from torch import nn
from toy_nets import make_search, plain_data, plain_net


@pytest.fixture
def net():
    return plain_net()


@pytest.fixture
def data():
    return plain_data()


def test_mask_modes(net, data):
    plain = copy.deepcopy(net)
    search = make_search(net)
    search.bank.set_kept(search.project())
    with search.masks('off'):
        torch.testing.assert_close(net(data[0]), plain(data[0]))
    with search.masks('hard'):
        assert set(search.bank.current.tolist()) == {0., 1.}
    assert search.bank.mode == 'soft'


def test_structure_and_cost_are_those_of_the_bank(net):
    search = make_search(net, depth=False)
    half = search.space.layout.size // 2
    search.bank.set_kept(half)
    assert [unit['kept'] for unit in search.structure()] == half.tolist()
    # stem 3x6, three blocks of two 6x6, all 3x3 on 8x8; fc 6x4
    assert search.current(hard=True) == 64 * 9 * (18 + 6 * 36) + 24


def test_unread_units_are_named(net, data):
    search = make_search(net)
    assert len(search.unread_units()) == search.space.layout.U
    net(data[0])
    assert search.unread_units() == []
    search.attach_masks()
    net.blocks[1].conv2 = nn.Conv2d(12, 12, 3, padding=1)  # not masked
    net(data[0])
    assert search.unread_units() == ['blocks.1.conv1']


@pytest.mark.parametrize('metric', ['macs', 'params'])
@pytest.mark.parametrize('target', [.35, '70%', None])
def test_projection_meets_any_budget_and_changes_nothing(net, metric, target):
    search = make_search(net, metric=metric)
    search.bank.ratios += torch.rand(search.space.layout.U) / 2
    search.bank.refresh()
    before = copy.deepcopy(search.bank.state_dict())
    budget = search.budget(target)
    kept = search.project(budget)
    keep = search.keep(kept)
    cost = search.resource(kept.double(), keep.double(), metric).item()
    assert .99 * budget <= cost <= budget
    for i in range(search.space.layout.U):
        rows = keep[search.space.layout.slice_of(i)]
        assert rows.sum() == kept[i]
    for name, value in search.bank.state_dict().items():
        assert torch.equal(value, before[name])


def test_budgets(net):
    search = make_search(net, target='40%')
    whole = search.resource.supernet()
    assert search.budget() == search.target == .4 * whole
    assert search.budget('60%') == search.budget(.6) == .6 * whole
    for target in ('1.5x', 1e15, 2):
        with pytest.raises(ValueError, match='target'):
            search.budget(target)


def test_export_of_another_budget(net, data, tmp_path):
    search = make_search(net)
    export = search.export(tmp_path / 'small', '30%', picture=False)
    macs = export.report.to_dict()['macs']
    assert .29 < macs['counted'] / macs['supernet'] <= .3
    assert search.bank.ratios.eq(0).all()
    search.bank.set_kept(search.project(search.budget('30%')))
    net.eval()
    with search.masks('hard'):
        torch.testing.assert_close(
            export.model(data[0]), net(data[0]), atol=1e-5, rtol=1e-5)
