# Copyright (c) dms_razor contributors. All rights reserved.
import pytest

from dms_razor.core import (TargetError, check_target, format_amount,
                            parse_target)

SUPERNET = 4.1e9


@pytest.mark.parametrize('target, expected', [
    (0.5, 2.05e9),
    (1, 4.1e9),
    (1.0, 4.1e9),
    ('0.5', 2.05e9),
    ('50%', 2.05e9),
    (' 12.5 % ', .5125e9),
    ('100%', 4.1e9),
    ('2.0G', 2e9),
    ('2g', 2e9),
    ('0.3G', .3e9),
    ('350M', 350e6),
    ('350 m', 350e6),
    ('7.5k', 7500),
    ('.002T', 2e9),
    ('4.1e9', 4.1e9),
    (4.1e9, 4.1e9),
    (2_000_000_000, 2e9),
    ('+3.5E8', 3.5e8),
])
def test_forms(target, expected):
    assert parse_target(target, SUPERNET) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    'target', ['', 'half', '2.0GB', '50%%', '1,5G', 'G', 'nan', 'inf', '1_0'])
def test_unreadable(target):
    with pytest.raises(TargetError, match='cannot be read.*fraction.*"50%"'):
        parse_target(target, SUPERNET, 'macs')


@pytest.mark.parametrize('target', [None, True, [1], 1j])
def test_no_number(target):
    with pytest.raises(TargetError, match='params target .* is a '):
        parse_target(target, SUPERNET, 'params')


@pytest.mark.parametrize(
    'target',
    [0, 0., -1, '-2G', '0%', '-50%',
     float('nan'),
     float('inf'), '1e999'])
def test_not_positive(target):
    with pytest.raises(TargetError, match='not a positive number'):
        parse_target(target, SUPERNET)


@pytest.mark.parametrize('target', [4.2e9, '4.2G', '101%', '5T'])
def test_above_the_supernet(target):
    with pytest.raises(TargetError, match='above the supernet\'s 4.1 G'):
        parse_target(target, SUPERNET)


def test_reachable():
    check_target(2e9, SUPERNET, 1e9)
    check_target(1e9, SUPERNET, 1e9)
    check_target(SUPERNET, SUPERNET, 1e9)
    with pytest.raises(
            TargetError,
            match='500 M cannot be reached.*1 G to 4.1 G macs.*raise'):
        check_target(5e8, SUPERNET, 1e9)
    with pytest.raises(TargetError, match='5 G lies above.*lower the target'):
        check_target(5e9, SUPERNET, 1e9)


def test_amounts():
    assert format_amount(4089184256) == '4.089 G'
    assert format_amount(25557032) == '25.56 M'
    assert format_amount(1500) == '1.5 K'
    assert format_amount(2e12) == '2 T'
    assert format_amount(12) == '12'


def test_a_share_without_its_sign():
    with pytest.raises(
            TargetError,
            match='target 50 cannot .*; a share is written "50%"$'):
        check_target(parse_target('50', 1e6), 1e6, 1e5)
    with pytest.raises(TargetError) as told:
        check_target(5e3, 1e6, 1e5)
    assert 'a share' not in str(told.value)
