# Copyright (c) dms_razor contributors. All rights reserved.
"""Scores that need no network: uniform and random; and their scale."""
import pytest
import torch

from dms_razor.baselines import METHODS, comparable
from dms_razor.core import Layout, Unit
from .helpers import make_search


def test_scores_are_divided_by_the_mean_of_their_unit():
    layout = Layout([Unit('a', 'width', 2, groups=2), Unit('b', 'width', 2)])
    scores = torch.tensor([1., 3., 8., 4., 0., 0.])
    assert comparable(scores, layout).tolist() == [.25, .75, 2., 1., 1., 1.]


def test_uniform_scores_are_shares():
    search = make_search()
    rows = search.space.rows(METHODS.find('uniform')(search))
    for unit, row in zip(search.space.units, rows):
        wanted = [1 - (i + .5) / unit.size for i in range(unit.size)]
        assert row[0].tolist() == pytest.approx(wanted)


def test_random_scores_are_those_of_the_seed():
    search, method = make_search(), METHODS.find('random')
    one = method(search, seed=3, scope='local')
    torch.rand(3)
    assert one.equal(method(search, seed=3, scope='local'))
    assert not one.equal(method(search, seed=4, scope='local'))
    whole = method(search, seed=3, scope='global')
    for mine, theirs in zip(search.space.rows(whole), search.space.rows(one)):
        factor = mine / theirs
        assert .25 <= factor.min() and factor.max() <= 1
        torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))


def test_names_are_told():
    with pytest.raises(
            ValueError,
            match='method of narrowing "tailor" is not.*'
            'uniform, random.*did you mean "taylor"'):
        METHODS.find('tailor')
