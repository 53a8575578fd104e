# Copyright (c) dms_razor contributors. All rights reserved.
import pytest

from dms_razor.core import TargetSchedule


def test_equation_10():
    schedule = TargetSchedule(8e9, 2e9, total=10)
    assert schedule(0) == 8e9
    assert schedule(5) == pytest.approx(4e9)
    assert schedule(2.5) == pytest.approx(8e9 / 2**.5)
    assert schedule(10) == schedule(11) == schedule(1000) == 2e9
    ratios = [schedule(e + 1) / schedule(e) for e in range(10)]
    assert ratios == pytest.approx([.25**.1] * 10)


def test_warm_up_is_part_of_the_total():
    schedule = TargetSchedule(16., 1., total=30, warmup=20)
    assert [schedule(e) for e in range(21)] == [16.] * 21
    assert schedule(25) == pytest.approx(4.)
    assert schedule(30) == 1.


def test_nothing_to_fall():
    assert TargetSchedule(3., 3., total=2)(1) == 3.


@pytest.mark.parametrize('arguments, message', [
    ((1., 2., 10), 'from 1.0 to 2.0'),
    ((1., 0., 10), 'from 1.0 to 0.0'),
    ((float('inf'), 1., 10), 'must be positive'),
    ((2., 1., 0), '0 steps'),
    ((2., 1., 10, 10), '10 steps of warm-up'),
    ((2., 1., 10, -1), 'not negative'),
])
def test_bad_schedules(arguments, message):
    with pytest.raises(ValueError, match=message):
        TargetSchedule(*arguments)
