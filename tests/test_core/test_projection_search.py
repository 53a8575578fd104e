# Copyright (c) dms_razor contributors. All rights reserved.
import itertools

import pytest
import torch

from dms_razor.core import Axis, Cost, Layout, ResourceModel, Term, Unit
from dms_razor.core import projection as search
from dms_razor.core.projection import BudgetProblem
from .helpers import random_ranks, random_resource


def new_problem(seed=0, widths=3, stages=1, share=.5, largest=4):
    layout, resource = random_resource(seed, widths, stages, largest=largest)
    torch.manual_seed(seed)
    ratios = torch.rand(layout.U).double()
    return BudgetProblem(layout, resource, ratios, random_ranks(layout, seed),
                         'macs', share * resource.supernet('macs'), None)


def every_network(problem):
    return torch.tensor(
        list(
            itertools.product(*(range(low, high + 1) for low, high in zip(
                problem.least.tolist(), problem.most.tolist())))))


def as_set(networks):
    return {tuple(kept) for kept in networks.tolist()}


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('floor', [0., .8, .99, 1.])
def test_small_spaces_are_searched_completely(seed, floor):
    problem = new_problem(seed, widths=2 + seed % 3, stages=seed % 3)
    every = every_network(problem)
    figures = problem.cost(every)
    inside = (figures <= problem.target) & (figures >= floor * problem.target)
    found = search.networks_between(problem, floor * problem.target)
    assert len(found) == len(as_set(found))
    assert as_set(found) == as_set(every[inside])


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('enough', [.9, .999999])
def test_nearest_of_the_good_else_largest(seed, enough):
    problem = new_problem(seed)
    every = every_network(problem)
    figures = problem.cost(every)
    fits = figures <= problem.target
    good = fits & (figures >= enough * problem.target)
    found = search.search_networks(problem, problem.least, enough)
    if good.any():
        assert problem.cost(found) >= enough * problem.target
        nearest = problem.distance(every[good]).min().item()
        # A sum of many rows at once may round the last bit differently.
        distance = problem.distance(found).item()
        assert distance == pytest.approx(nearest, rel=1e-12)
    else:
        assert problem.cost(found) == figures[fits].max()


def test_what_cannot_be_bettered_stays():
    layout = Layout([Unit('a', 'width', 4), Unit('b', 'width', 4)])
    axes = [Axis((Term(1, (1, )), Term(1, (2, ))))]
    costs = [Cost('sum', 'Linear', 'macs', 1, (0, ))]
    problem = BudgetProblem(layout, ResourceModel(axes, costs, layout),
                            torch.zeros(2), random_ranks(layout, 0), 'macs',
                            5.5, None)
    for best in ([1, 4], [2, 3], [3, 2], [4, 1]):  # all of them cost 5
        best = torch.tensor(best)
        assert search.search_networks(problem, best, .99).equal(best)


@pytest.mark.parametrize('seed', range(3))
def test_large_spaces_are_sampled(seed, monkeypatch):
    monkeypatch.setattr(search, '_WORK', 10**6)
    problem = new_problem(seed, widths=12, stages=3, largest=60)
    found = search.networks_between(problem, .9 * problem.target)
    assert 0 < len(found) < 10**5
    figures = problem.cost(found)
    assert bool((figures <= problem.target).all())
    assert bool((figures >= .9 * problem.target).all())
    assert bool(((found >= problem.least) & (found <= problem.most)).all())


def test_values_of_wide_units_include_what_was_asked():
    problem = new_problem(largest=1000)
    unit = int(problem.size.argmax())
    values = search._values(problem, unit)
    assert len(values) <= 33
    assert values[0] == problem.least[unit]
    assert values[-1] == problem.most[unit]
    assert problem.asked[unit].round().long() in values
