# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch

from dms_razor.core import importance as metrics

MASK = torch.tensor([1., .5, 0., .25], dtype=torch.float64)
GRAD = torch.tensor([-2., 4., 3., 0.], dtype=torch.float64)
PLACE = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize('metric, expected', [
    ('taylor', [4., 4., 0., 0.]),
    ('snip', [2., 2., 0., 0.]),
    ('fisher', [4., 16., 9., 0.]),
])
def test_moving_averages(metric, expected):
    current = torch.tensor([0., 1., 2., 3.], dtype=torch.float64)
    new = metrics.update(current, MASK, GRAD, PLACE, metric, decay=.75)
    by_hand = [.75 * c + .25 * e for c, e in zip(current.tolist(), expected)]
    assert new.tolist() == pytest.approx(by_hand)


def test_default_is_taylor_with_the_papers_decay():
    new = metrics.update(torch.ones(4).double(), MASK, GRAD, PLACE)
    assert new.tolist() == pytest.approx([1.03, 1.03, .99, .99])


def test_metrics_without_memory():
    current = torch.full((4, ), 7.).double()
    new = metrics.update(current, MASK, GRAD, PLACE, 'taylor_no_average')
    assert new.tolist() == [4, 4, 0, 0]
    new = metrics.update(current, MASK, GRAD, PLACE, 'index')
    assert new[0] > new[1] and new[0] == new[2] and new[1] == new[3]


def test_index_stays_distinct_in_a_wide_unit():
    place = torch.arange(100_000)
    ones = torch.ones(len(place)).double()
    figure = metrics.index(ones, ones, place)
    assert bool((figure.diff() < 0).all()) and bool((figure > 0).all())


def test_unknown_metric():
    with pytest.raises(ValueError, match='"l1".*taylor.*snip.*index'):
        metrics.check_metric('l1')
