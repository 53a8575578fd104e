# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: training is what a plain loop does."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dms_razor import Search
from tools.compare.data import Images
from tools.compare.experiment import Data, ExperimentError, Recipe
from tools.compare.networks import ResNet, initialise
from tools.compare.training import (Machine, evaluate, memory_format,
                                    new_weights, train)


@pytest.fixture
def images():
    pixels = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(24) % 4
    return Images('x', (pixels, labels), (pixels, labels), 4, Data(size=8))


def small(classes=4):
    return ResNet((8, 8), (1, 1), classes)


def test_is_a_plain_loop(images):
    recipe = Recipe(epochs=2, batch=8, lr=.1, warmup=.5, weight_decay=.01)
    net = small()
    other = copy.deepcopy(net)
    seen = train(net, images, recipe, 5, Machine(), 'x')
    assert seen == 6 * 8
    optimizer = torch.optim.SGD(
        other.parameters(), .1, .9, weight_decay=.01, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, .1, total_steps=6, pct_start=.5)
    for _, (inputs, labels) in zip(range(6), images.batches(8, 5)):
        optimizer.zero_grad()
        F.cross_entropy(other(inputs), labels).backward()
        optimizer.step()
        schedule.step()
    for a, b in zip(net.parameters(), other.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_searches_and_is_watched(images):
    net = small()
    search = Search(net, images.example, '50%', total_steps=3, seed=0)
    seen = []
    train(
        net,
        images,
        Recipe(batch=8, lr=.1, schedule='constant'),
        0,
        Machine(),
        'x',
        steps=3,
        search=search,
        watch=lambda step, loss: seen.append((step, search.step_count)))
    assert search.step_count == search.bank.updates == 3
    assert seen == [(0, 0), (1, 1), (2, 2)]


def test_evaluation_is_counted_by_hand(images):
    net = small().eval()
    logits = net(images.normal(images.test[0]))
    top1, loss = evaluate(net.train(), images, Machine())
    right = sum(
        int(row.argmax()) == label
        for row, label in zip(logits, images.test[1].tolist()))
    assert top1 == pytest.approx(100 * right / 24)
    expected = -logits.log_softmax(1)[range(24), images.test[1]].mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    assert net.training


def test_bfloat16_is_used_where_it_is_asked_for(images):
    kinds = []

    class Spy(nn.Linear):

        def forward(self, x):
            out = super().forward(x.flatten(1))
            kinds.append(out.dtype)
            return out

    for amp in (True, False):
        evaluate(Spy(192, 4), images, Machine(amp=amp))
    assert kinds == [torch.bfloat16, torch.float32]


def test_a_loss_that_is_not_finite_is_told(images):
    recipe = Recipe(steps=50, batch=8, lr=1e18, schedule='constant')
    with pytest.raises(ExperimentError, match='after 50 steps: lower the le'):
        train(small(), images, recipe, 0, Machine(), 'x')


@pytest.mark.parametrize('conv, last', [
    (nn.Conv2d(7, 9, 1, 2), False),
    (nn.Conv2d(8, 9, 1, 2), True),
    (nn.Conv2d(7, 9, 1), True),
    (nn.Conv2d(7, 9, 3, 2), True),
])
def test_channels_last_where_it_is_safe(conv, last):
    expected = torch.channels_last if last else torch.contiguous_format
    assert memory_format(nn.Sequential(nn.ReLU(), conv)) == expected


def test_new_weights_depend_on_the_seed_alone():
    nets = [new_weights(small(), seed, initialise) for seed in (1, 1, 2)]
    first, again, other = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first['stem.weight'], other['stem.weight'])
    torch.manual_seed(1)
    layer = nn.Linear(3, 4)
    torch.manual_seed(9)
    found = new_weights(nn.Sequential(nn.Linear(3, 4)), 1)
    assert torch.equal(found[0].weight, layer.weight)


def test_weights_that_nobody_resets_are_named():

    class Table(nn.Module):

        def __init__(self):
            super().__init__()
            self.positions = nn.Parameter(torch.zeros(3))

    with pytest.raises(ExperimentError, match=r'"0" \(Table\).*init'):
        new_weights(nn.Sequential(Table()), 0)
