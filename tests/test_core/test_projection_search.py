# Copyright (c) dms_razor contributors. All rights reserved.
import itertools

import pytest
import torch

from dms_razor.core import projection_search as search
from dms_razor.core.projection import Problem
from .helpers import random_ranks, random_resource


def new_problem(seed=0, widths=3, stages=1, share=.5, largest=4):
    layout, resource = random_resource(seed, widths, stages, largest=largest)
    torch.manual_seed(seed)
    ratios = torch.rand(layout.U).double()
    return Problem(layout, resource, ratios, random_ranks(layout, seed),
                   'macs', share * resource.supernet('macs'), None)


def networks(problem):
    return torch.tensor(
        list(
            itertools.product(*(range(low, high + 1) for low, high in zip(
                problem.least.tolist(), problem.most.tolist())))))


def test_volume():
    problem = new_problem()
    assert search.volume(problem) == len(networks(problem))
    assert search.volume(problem, problem.is_depth) == (problem.most -
                                                        problem.least + 1)[-1]
    assert search.volume(new_problem(widths=30)) is None


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('enough', [0., .99])
def test_best_of_all(seed, enough):
    problem = new_problem(seed)
    every = networks(problem)
    figures = problem.figure(every)
    good = (figures <= problem.target) & (figures >= enough * problem.target)
    best = search.best_of_all(problem, enough)
    if good.any():
        distances = problem.distance(every[good])
        assert problem.distance(best) == distances.min()
        assert bool((every[good] == best).all(1).any())
    else:
        fits = figures[figures <= problem.target]
        assert problem.figure(best) == fits.max()


def test_best_at_one_depth():
    problem = new_problem(3)
    for depth in range(int(problem.most[-1]) + 1):
        kept = problem.least.clone()
        kept[-1] = depth
        if problem.figure(kept) > problem.target:
            continue
        best = search.best_of_all(problem, 2., kept)  # 2: never enough
        every = networks(problem)
        every = every[every[:, -1] == depth]
        figures = problem.figure(every)
        assert best[-1] == depth
        assert problem.figure(best) == figures[figures <= problem.target].max()


@pytest.mark.parametrize('seed', range(4))
def test_trades_and_random_fills_stay_inside_and_do_not_get_worse(seed):
    problem = new_problem(seed, widths=10, stages=2, largest=6)
    assert search.volume(problem, ~problem.is_depth) is None
    start = problem.least.clone()
    for step in (search._trade, search._fill_at_random):
        better = step(problem, start, .99)
        assert bool((better >= problem.least).all())
        assert bool((better <= problem.most).all())
        assert better[problem.is_depth].equal(start[problem.is_depth])
        assert problem.figure(start) <= problem.figure(
            better) <= problem.target


def test_nearby_depths_come_nearest_first_and_can_meet_the_target():
    problem = new_problem(2, widths=4, stages=3)
    depth = problem.least.clone()
    found = search.nearby_depths(problem, depth, .99)
    distances = [problem.distance(kept).item() for kept in found]
    assert found and distances == sorted(distances)
    for kept in found:
        assert not kept[problem.is_depth].equal(depth[problem.is_depth])
        lowest = torch.where(problem.is_depth, kept, problem.least)
        highest = torch.where(problem.is_depth, kept, problem.most)
        assert problem.figure(lowest) <= problem.target
        assert problem.figure(highest) >= .99 * problem.target


def test_many_stages_move_by_a_block_or_two(monkeypatch):
    problem = new_problem(2, widths=4, stages=3)
    monkeypatch.setattr(search, 'EXHAUSTIVE', 1)
    depth = problem.least.clone()
    found = search.nearby_depths(problem, depth, 0.)
    moved = {tuple(kept[-3:].tolist()) for kept in found}
    assert moved <= {(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1),
                     (0, 1, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)}
    assert (1, 0, 0) in moved


def test_no_stage_no_other_depth():
    problem = new_problem(stages=0)
    assert search.nearby_depths(problem, problem.least, .99) == []
