# Copyright (c) dms_razor contributors. All rights reserved.
import itertools
import json
import random

import pytest
import torch
from torch import nn

from dms_razor import Search
from dms_razor.baselines import CountsInBudget, evolve
from dms_razor.baselines.evolution import crossed
from dms_razor.core import TargetError
from dms_razor.counting import count_macs
from dms_razor.subnet.slicing import slice_model


class Block(nn.Module):

    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 48), nn.Linear(48, width)

    def forward(self, x):
        return torch.relu(x + self.down(torch.relu(self.up(x))))


class Net(nn.Module):
    """Four widths of 48 to 64 and a stage of two blocks."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Linear(16, 64), nn.Sequential(
            Block(64), Block(64))
        self.mid, self.head = nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(
            torch.relu(self.mid(self.blocks(torch.relu(self.stem(x))))))


def net():
    torch.manual_seed(0)
    return Net()


def make_search(**settings):
    return Search(net(), torch.zeros(1, 16), **settings)


def counted(search, kept):
    """MACs of the network that is cut out, counted on the network."""
    selection = search.bank.hard(torch.tensor(kept))
    subnet = slice_model(net(), search.space, selection)
    return count_macs(subnet, torch.zeros(1, 16)).total


def taste(kept):
    """A score with one optimum, wherever the budget leaves room."""
    return float(
        sum((5 + 3 * (u * u % 5)) * k**.5 for u, k in enumerate(kept)))


def score(search):
    return taste(search.bank.kept().tolist())


def test_it_finds_the_best_network_of_a_space_that_can_be_listed():
    """The truth: every network, one after the other."""
    search = make_search(units={'*.up': dict(fixed=True)}, depth=False)
    space, listed = CountsInBudget(search), []
    units = search.space.layout.units
    for kept in itertools.product(*(unit.allowed for unit in units)):
        if .99 * search.target <= counted_by_hand(*kept) <= search.target:
            counts = torch.tensor(kept)
            # what a projection would move is no candidate
            if torch.equal(space.fit(counts), counts):
                listed.append(kept)
    assert len(listed) > 4
    found = evolve(search, score, population=6, generations=12)
    assert found.best.kept == max(listed, key=taste)
    assert found.best.score == taste(found.best.kept)
    assert {c.kept for c in sum(found.history, [])} <= set(listed)


def counted_by_hand(stem, mid):
    """MACs with both blocks whole."""
    return 16 * stem + 4 * 48 * stem + stem * mid + 4 * mid


def test_a_known_structure_is_found_in_a_space_that_is_larger():
    search = make_search()
    wanted = CountsInBudget(search).fit(torch.tensor([40, 10, 45, 20, 2]))

    def nearness(search):
        return -float((search.bank.kept() - wanted).abs().sum())

    found = evolve(
        search, nearness, population=16, generations=10, mutation=.3)
    assert max(c.score for c in found.history[0]) < -20
    assert found.best.score > -12


@pytest.mark.parametrize('budget', [None, '80%', .4])
def test_every_candidate_meets_the_budget_on_the_network_itself(budget):
    search = make_search()
    whole = search.space.resource.supernet('macs')
    target = {None: .5, '80%': .8, .4: .4}[budget] * whole
    found = evolve(
        search, score, population=6, generations=3, budget=budget, seed=1)
    candidates = [c for generation in found.history for c in generation]
    assert len({c.kept for c in candidates}) == len(candidates) == 18
    for candidate in candidates:
        assert .99 * target <= candidate.cost <= target
        assert counted(search, candidate.kept) == candidate.cost


def test_networks_are_scored_under_their_own_hard_masks():
    search = make_search()
    images = torch.randn(4, 16)
    outputs = []

    def look(search):
        kept = search.bank.kept()
        with torch.no_grad():
            outputs.append((kept, search.model(images)))
        return score(search)

    evolve(search, look, population=3, generations=2)
    assert search.bank.mode == 'soft'
    for kept, output in outputs:
        subnet = slice_model(net(), search.space, search.bank.hard(kept))
        with torch.no_grad():
            torch.testing.assert_close(output, subnet(images))


def test_the_best_is_what_the_search_exports(tmp_path):
    search = make_search()
    found = evolve(search, score, population=4, generations=2)
    export = search.export(tmp_path / 'subnet', picture=False)
    report = json.loads((tmp_path / 'subnet/report.json').read_text())
    assert [unit['kept'] for unit in report['units']] == [*found.best.kept]
    assert count_macs(export.model, torch.zeros(1,
                                                16)).total == found.best.cost
    best = max((c for generation in found.history for c in generation),
               key=lambda c: c.score)
    assert found.best == best


def test_a_seed_gives_the_same_evolution_and_another_one_another():
    runs = [
        evolve(make_search(), score, population=5, generations=3,
               seed=seed).history for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_space_that_is_used_up_ends_the_evolution():
    search = make_search(units={'*.up': dict(fixed=True)}, depth=False)
    found = evolve(search, score, population=20, generations=20)
    assert len(found.history) < 20 and found.evaluations < 100


def test_crossing_takes_the_given_share():
    draw = random.Random(0)
    child = crossed([0] * 4000, [1] * 4000, .3, draw)
    assert .27 < child.double().mean() < .33
    assert crossed([0, 1], [2, 3], 1., draw).tolist() == [2, 3]


@pytest.mark.parametrize('settings, error, message', [
    (dict(population=0), ValueError, 'population'),
    (dict(generations=1.5), ValueError, 'generations'),
    (dict(mutation=0), ValueError, 'mutation'),
    (dict(parents=0), ValueError, 'parents'),
    (dict(least=1.5), ValueError, 'least'),
    (dict(budget='0.1%'), TargetError, 'cannot be reached'),
])
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        evolve(make_search(), score, **settings)


def test_what_cannot_be_used_is_told():
    with pytest.raises(ValueError, match='evaluate gave nan'):
        evolve(make_search(), lambda search: float('nan'))
    coarse = make_search(units={'*': dict(choices=[24, 48])}, depth=False)
    with pytest.raises(TargetError, match='too coarse'):
        evolve(coarse, score, population=2, generations=2, least=.999)
