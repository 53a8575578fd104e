# Copyright (c) dms_razor contributors. All rights reserved.
"""Slices are measured by their own largest entry."""
import pytest
import torch

from dms_razor.proof.compare import (TOLERANCES, compare, evidence, numbers_of,
                                     scales)

DOUBLE = TOLERANCES[torch.float64]
INF, NAN = float('inf'), float('nan')


def rows(*numbers):
    """A tensor of double precision."""
    return torch.tensor(numbers, dtype=torch.float64)


def test_an_entry_is_measured_by_the_smallest_of_its_slices():
    x = rows([640., 1.], [-320., .25], [0., 0.])
    # Of each entry: the largest of its row and that of its column.
    assert torch.equal(scales(x), rows([640., 1.], [320., 1.], [0., 0.]))
    assert torch.equal(scales(rows(3., -2.)), rows(3., 2.))
    assert scales(torch.tensor(-2.)) == 2
    naive = torch.randn(3, 4, 5).double()
    for i, j, k in ((0, 1, 2), (2, 3, 4)):
        slices = (naive[i], naive[:, j], naive[:, :, k])
        assert scales(naive)[i, j, k] == min(s.abs().max() for s in slices)


@pytest.mark.parametrize('place', [(0, 3), (2, 3)])
def test_small_slices_beside_large_ones(place):
    a = torch.rand(4, 6, dtype=torch.float64) + .5
    a[:, 3] *= 1e-4  # scores beside boxes of pixels
    b = a.clone()
    b[place] *= 1 + 1e-6
    worst, reason = compare([a], [b], DOUBLE)
    assert 1e-7 < worst < 1e-5 and 'outputs differ by' in reason
    assert (a - b).abs().max() < 1e-9 * a.abs().max()


def test_rounding_is_no_difference():
    a = rows([1., 2.], [0., 0.])
    assert compare([a], [a], DOUBLE) == (0., None)
    worst, reason = compare([a], [a * (1 + 1e-12) + 1e-16], DOUBLE)
    assert 0 < worst < 1e-10 and reason is None
    _, reason = compare([a], [a + rows([0., 0.], [1e-9, 0.])], DOUBLE)
    assert reason is not None, 'a row that is 0 in one network only'


@pytest.mark.parametrize('a, b, words', [
    ([rows(1., 2.)], [], '0 outputs instead of 1'),
    ([rows(1., 2.)], [rows(1.)], r'shape \(1,\) instead of \(2,\)'),
    ([rows(1., NAN)], [rows(1., 2.)], 'finite in one'),
    ([rows(1., INF)], [rows(2., INF)], 'differ by 1'),
])
def test_what_is_wrong_is_said(a, b, words):
    worst, reason = compare(a, b, DOUBLE)
    assert worst >= 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)


def test_low_precision_has_a_tolerance_of_its_own():
    a = torch.rand(8, 8) + .5
    assert compare([a], [a + 1e-6], TOLERANCES[torch.float32])[1] is None
    assert compare([a], [a + 1e-2], TOLERANCES[torch.float32])[1] is not None
    assert compare([a], [a + 1e-2], TOLERANCES[torch.bfloat16])[1] is None


def test_numbers_of_whatever_is_returned():
    out = dict(
        a=[torch.ones(2, dtype=torch.int64)],
        b=(torch.ones(3), 'x'),
        c=torch.ones(2, dtype=torch.complex64))
    assert [tuple(t.shape) for t in numbers_of(out)] == [(2, ), (3, ), (2, 2)]


def test_what_tells_networks_apart():
    x, y = rows([1., 2.], [3., NAN]), rows([1., 2.5], [3., NAN])
    one, nan = torch.ones(2, 2), torch.full((2, 2), NAN)
    pairs = [(x, y), (x, x), (one, one * 2), (nan, nan), (one[0, 0], y[0, 1]),
             (x[:0], x[:0]), (x, x[:1])]
    first, second = zip(*pairs)
    assert evidence(list(first), list(second)) == [
        True, False, False, False, True, False, True
    ]
    assert evidence([x], [x, y]) == [False]


def test_whole_numbers_are_the_same_or_wrong():
    a, b = torch.tensor([3, 9, 9]), torch.tensor([3, 9, 8])
    assert compare([a], [a], DOUBLE) == (0., None)
    assert compare([a], [b], DOUBLE)[1] is not None
    assert compare([a > 5], [b > 8], DOUBLE)[1] is not None
    assert compare([a], [b], TOLERANCES[torch.float32]) == (0., None)
    assert evidence([a, a], [b, a]) == [True, False]
