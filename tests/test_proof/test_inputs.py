# Copyright (c) dms_razor contributors. All rights reserved.
"""Inputs of the self-check are like the example, and tell more."""
import torch

from dms_razor.proof.inputs import draw, nudge


def test_numbers_come_from_their_own_range():
    x = torch.tensor([[-2., 3.], [0., 1.]]).repeat(50, 1)
    found = draw((x, ), 0)[0]
    assert found.shape == x.shape and found.dtype == x.dtype
    assert found.min() >= -2 and found.max() <= 3
    assert len(found.unique()) == found.numel()
    assert found.min() < -1.5 and found.max() > 2.5, 'all of it'
    assert torch.equal(found, draw((x, ), 0)[0])
    assert not torch.equal(found, draw((x, ), 1)[0])


def test_a_tensor_of_one_number_begins_at_0():
    for value, low, high in ((0., 0, 1), (1., 0, 1), (255., 0, 255), (-4., -4,
                                                                      0)):
        found = draw(torch.full((200, ), value), 0)
        assert low <= found.min() < found.max() <= high
        assert found.max() - found.min() > .9 * (high - low)
    one = torch.full((1, ), 500.)  # a time step
    assert draw(one, 0).equal(one) and draw(one[0], 0).equal(one[0])


def test_masks_and_indices_stay_valid():
    mask = torch.tensor([0., 1., 1., 1., 1., 1., 1., 1., 1., 1.])
    words = torch.arange(100, 400, 7).view(1, -1)
    truth = mask.bool()
    found = draw([mask, words, truth], 0)
    for old, new in zip((mask, words, truth), found):
        assert new.dtype == old.dtype and not torch.equal(new, old)
        assert torch.equal(new.flatten().sort().values,
                           old.flatten().sort().values)


def test_whole_numbers_that_are_all_the_same():
    words, size = torch.zeros(1, 50, dtype=torch.long), torch.tensor([[7, 7]])
    for x in (words, size, torch.ones(4, dtype=torch.bool)):
        assert torch.equal(draw(x, 0), x)
    found = draw(words, 0, constants=True)
    assert found.unique().tolist() == [0, 1] and found.dtype == torch.long
    found = draw(size.repeat(50, 1), 0, constants=True)
    assert found.unique().tolist() == list(range(8))


def test_marks_that_are_not_finite_stay():
    x = torch.tensor([0., -1., -float('inf'), 2.])
    found = draw(x, 0)
    assert found.isinf().tolist() == [False, False, True, False]
    assert found[0] != 0 and found[1] != -1


def test_a_nudge_is_small():
    x, words = torch.randn(50), torch.arange(5)
    near, same = nudge((x, words), 0)
    assert torch.equal(same, words) and not torch.equal(near, x)
    assert ((near - x).abs() <= 1.001e-3 * x.abs() + 1e-7).all()


def test_complex_numbers_and_gradients():
    x = torch.randn(20, dtype=torch.complex64)
    found = draw(x, 0)
    assert found.dtype == x.dtype and found.shape == x.shape
    assert len(torch.view_as_real(found).unique()) == 40
    assert not draw(torch.rand(3, requires_grad=True), 0).requires_grad
