# Copyright (c) dms_razor contributors. All rights reserved.
"""Moments of a supernet's optimizer in that of its subnet."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor import Search
from dms_razor.subnet.moments import carry_over
from tools.compare.networks import ResNet, VisionTransformer

KINDS = {
    'adam': lambda weights: torch.optim.AdamW(weights, .01),
    'sgd': lambda weights: torch.optim.SGD(weights, .01, momentum=.9),
}


def batch(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(
        8, 3, 16, 16, generator=generator).double(), torch.arange(8) % 4


def train(model, optimizer, number):
    images, labels = batch(number)
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('make', (lambda: ResNet(
    (8, 16),
    (2, 2), classes=4), lambda: VisionTransformer(24, 2, 4, 16, 4, classes=4)))
def test_training_goes_on_as_if_nothing_had_been_cut(make, kind, tmp_path):
    """Supernet under hard masks, subnet: the same weights, step by step."""
    torch.manual_seed(0)
    model = make().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=.1)
    search = Search(model, batch(0)[0], '50%', total_steps=10)
    search.bank.importance = torch.rand_like(search.bank.importance)
    search.bank.refresh()
    search.bank.set_kept(search.project())
    search.bank.mode = 'hard'
    optimizer = KINDS[kind](model.parameters())
    for number in range(3):
        train(model, optimizer, number)
    export = search.export(tmp_path / 'subnet', picture=False)
    subnet = export.model.train()
    again = KINDS[kind](subnet.parameters())
    before = copy.deepcopy(optimizer.state_dict())
    given = export.carry_over(model, optimizer, again)
    assert given == len(list(subnet.parameters()))
    for number in (3, 4):
        train(model, optimizer, number)
        train(subnet, again, number)
    wanted = dict(export.cut(model).named_parameters())
    for name, parameter in subnet.named_parameters():
        assert (parameter - wanted[name]).abs().max() < 1e-9, name
    fresh = export.cut(model)
    assert [p.shape for p in fresh.parameters()
            ] == [p.shape for p in subnet.parameters()]
    assert before['state'].keys() == optimizer.state_dict()['state'].keys()


def test_the_search_is_left_as_it_was():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    subnet = copy.deepcopy(model)
    new = torch.optim.Adam(subnet.parameters(), 1.)
    before = copy.deepcopy(optimizer.state_dict())
    assert carry_over(optimizer, model, copy.deepcopy, new, subnet) == 2
    subnet(torch.ones(1, 4)).sum().backward()
    new.step()
    for one, other in zip(before['state'].values(),
                          optimizer.state_dict()['state'].values()):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_does_not_belong_together():
    model, other = nn.Linear(4, 3), nn.Linear(4, 3)
    adam, sgd = (
        kind(model.parameters(), .1)
        for kind in (torch.optim.Adam, torch.optim.SGD))
    with pytest.raises(TypeError, match='Adam means nothing to SGD'):
        carry_over(adam, model, copy.deepcopy, sgd, model)
    with pytest.raises(ValueError, match='Adam trains no parameter of this'):
        carry_over(adam, other, copy.deepcopy, adam, other)


class Rows(torch.optim.SGD):
    """Keeps one number a row."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group['params']:
                self.state[p]['rows'] = torch.zeros(len(p))


@pytest.mark.parametrize('one, other, reason', (
    (lambda w: torch.optim.Adam(w),
     lambda w: torch.optim.Adam(w, amsgrad=True), 'amsgrad differs'),
    (lambda w: torch.optim.RMSprop(w),
     lambda w: torch.optim.RMSprop(w, centered=True), 'centered differs'),
    (lambda w: torch.optim.SGD(w, .1, momentum=.9),
     lambda w: torch.optim.SGD(w, .1), 'momentum differs'),
    (lambda w: Rows(w, .1), lambda w: Rows(w, .1),
     'keeps "rows" .3,. of the weight "weight" .3, 4.'),
))
def test_what_cannot_be_cut(one, other, reason):
    model = nn.Linear(4, 3)
    optimizer = one(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    subnet = copy.deepcopy(model)
    with pytest.raises(ValueError, match=reason):
        carry_over(optimizer, model, copy.deepcopy, other(subnet.parameters()),
                   subnet)
