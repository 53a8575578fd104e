# Copyright (c) dms_razor contributors. All rights reserved.
import json

import pytest
import torch
from torch import nn

from dms_razor.core.bank import Bank
from dms_razor.core.budget import constraint_loss
from dms_razor.preflight import preflight, steps_to_target
from dms_razor.trace import trace


@pytest.fixture
def space():
    """3-8-8-6 channels on 4x4, a depthwise conv in the middle, 5 classes."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    return trace(net, torch.zeros(1, 3, 4, 4))


def test_figures_are_those_of_the_network(space):
    report = preflight(space, '50%')
    data = report.to_dict()
    assert data['ratios'] == 2 and data['elements'] == 14
    assert data['width'] == dict(units=2, elements=14)
    assert data['depth'] == dict(units=0, elements=0)
    supernet = 16 * (27 * 8 + 9 * 8 + 8 * 6) + 6 * 5
    assert data['macs'] == dict(
        supernet=supernet, minimum=16 * (27 + 9 + 1) + 5, target=supernet / 2)
    assert data['params'] == dict(
        supernet=27 * 8 + 8 + 9 * 8 + 8 + 48 + 6 + 30 + 5,
        minimum=27 + 1 + 9 + 1 + 1 + 1 + 5 + 5,
        target=None)
    assert data['reachable'] and data['problem'] is None
    assert [item['module'] for item in data['full_width']] == ['7']
    assert all(item['reason'] for item in data['full_width'])


def test_target_in_parameters(space):
    report = preflight(space, 200, metric='params')
    assert report.target == 200
    assert report.to_dict()['macs']['target'] is None
    assert report.to_dict()['params']['target'] == 200


def test_json_is_the_dict(space):
    report = preflight(space, .5)
    assert json.loads(report.to_json()) == report.to_dict()


def test_text_says_it_all(space):
    text = preflight(space, .5, total_steps=3, lr=5e-3, loss_weight=1.).text()
    for part in ('ratios', '14 elements', 'smallest', '50.0%', 'yes',
                 'output of the network', 'the search has 3'):
        assert part in text


@pytest.mark.parametrize('target, message', [
    ('2x', 'cannot be read'),
    ('300%', 'above'),
    (20, 'cannot be reached'),
])
def test_a_bad_target_is_told_and_raised_on_demand(space, target, message):
    report = preflight(space, target)
    assert not report.to_dict()['reachable'] and report.steps is None
    assert 'no: ' in report.text()
    with pytest.raises(ValueError, match=message):
        report.check()


def test_no_target_is_no_problem(space):
    report = preflight(space).check()
    assert report.target is None and 'reachable' not in report.text()


def test_unknown_metric(space):
    with pytest.raises(ValueError, match='seconds'):
        preflight(space, metric='seconds')


def test_nothing_that_can_move_is_a_problem():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    space = trace(
        net, torch.zeros(1, 3, 8, 8), units={'0': dict(least=8, most=8)})
    report = preflight(space, .5)
    assert report.ratios == 0
    with pytest.raises(ValueError, match='nothing in this network'):
        report.check()


@pytest.mark.parametrize('lr', [.02, .002])
def test_steps_are_those_of_a_search_without_task_gradient(space, lr):
    target = .5 * space.resource.supernet('macs')
    bank = Bank(space.layout, lr=lr)
    steps = 0
    bank.updates = 1
    while space.resource(bank.counts(), bank.resource_masks()) > target:
        (bank.masks.sum() * 0 + bank.loss_anchor()).backward()
        bank.update(lambda counts, masks: constraint_loss(
            space.resource(counts, masks), target))
        steps += 1
    assert steps_to_target(
        space, target, lr=lr) == pytest.approx(
            steps, rel=.03)


def test_steps_shrink_with_the_weight_of_the_loss(space):
    target = .5 * space.resource.supernet('macs')
    one = steps_to_target(space, target, lr=1e-3)
    assert steps_to_target(
        space, target, lr=1e-3, loss_weight=10) == pytest.approx(
            one / 10, rel=.1)


def test_ratios_that_cannot_get_there_give_no_steps(space):
    assert steps_to_target(space, space.resource.minimum('macs') / 2) is None


def test_every_kind_of_unit_is_in_the_json(space):
    data = json.loads(preflight(space).to_json())
    for kind in ('heads', 'qk', 'v'):
        assert data[kind] == dict(units=0, elements=0)
