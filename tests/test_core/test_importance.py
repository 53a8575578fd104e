# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch

from dms_razor.core import IMPORTANCES, Bank, Layout, Unit
from dms_razor.core.importance import averaged, make_importance

MASK = torch.tensor([1., .5, 0., .25], dtype=torch.float64)
GRAD = torch.tensor([-2., 4., 3., 0.], dtype=torch.float64)
LAYOUT = Layout([Unit('a', 'width', 2, groups=2)])


def update(current, name='taylor', **settings):
    return make_importance(name, LAYOUT, **settings)(MASK, GRAD, current)


@pytest.mark.parametrize('name, expected', [
    ('taylor', [4., 4., 0., 0.]),
    ('snip', [2., 2., 0., 0.]),
    ('fisher', [4., 16., 9., 0.]),
])
def test_moving_averages(name, expected):
    current = torch.tensor([0., 1., 2., 3.], dtype=torch.float64)
    new = update(current, name, decay=.75)
    by_hand = [.75 * c + .25 * e for c, e in zip(current.tolist(), expected)]
    assert new.tolist() == pytest.approx(by_hand)


def test_default_is_taylor_with_the_papers_decay():
    new = update(torch.ones(4).double())
    assert new.tolist() == pytest.approx([1.03, 1.03, .99, .99])


def test_importances_without_memory():
    current = torch.full((4, ), 7.).double()
    new = update(current, 'taylor_no_average')
    assert new.tolist() == [4, 4, 0, 0]
    new = update(current, 'index')
    assert new[0] > new[1] and new[0] == new[2] and new[1] == new[3]


def test_index_stays_distinct_in_a_wide_unit():
    layout = Layout([Unit('a', 'width', 100_000)])
    ones = torch.ones(layout.E).double()
    value = make_importance('index', layout)(ones, ones, ones)
    assert bool((value.diff() < 0).all()) and bool((value > 0).all())


def test_unknown_importance():
    with pytest.raises(ValueError, match='"l1".*taylor.*snip.*index'):
        make_importance('l1', LAYOUT)


@pytest.mark.parametrize(
    'importance', ['index', 'taylor_no_average', lambda m, g, p: g.abs()])
def test_decay_without_memory_is_refused(importance):
    make_importance(importance, LAYOUT)
    with pytest.raises(ValueError, match='decay=0.9 has no effect'):
        Bank(LAYOUT, importance=importance, decay=.9)


def step(bank):
    (bank.current @ torch.arange(4.) + bank.loss_anchor()).backward()
    assert bank.update()
    return bank.importance.tolist()


def test_any_callable_is_an_importance():
    """It gets the importance so far and does its own averaging."""
    bank = Bank(LAYOUT, importance=lambda mask, grad, last: last + grad)
    assert step(bank) == [0, 1, 2, 3]
    assert step(bank) == [0, 2, 4, 6]


def test_one_registration_adds_a_name():
    name = 'test_linear'
    IMPORTANCES.register(name)(averaged(lambda mask, grad: mask * grad))
    try:
        assert step(Bank(LAYOUT, importance=name, decay=.5)) == [0, .5, 1, 1.5]
        with pytest.raises(ValueError, match='decay.*must lie in'):
            Bank(LAYOUT, importance=name, decay=1.)
    finally:
        del IMPORTANCES[name]
