# Copyright (c) dms_razor contributors. All rights reserved.
"""One step of the numbers: along a gradient, onto the budget, booked."""
import torch

from dms_razor.core.layout import Layout, Unit
from dms_razor.core.motion import Motion
from dms_razor.core.selectors import DifferentiableTopk

LAYOUT = Layout([Unit('a', 'width', 10), Unit('b', 'width', 10)])


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def made(lr):
    selector = DifferentiableTopk(LAYOUT)
    selector.numbers = vector(.2, .4)
    return selector, Motion(selector, LAYOUT, lr)


def test_the_first_step_rests():
    selector, motion = made(.5)
    motion.along(selector, vector(1, 1), vector(1, 1), still=True)
    motion.book(selector)
    assert selector.numbers.equal(vector(.2, .4))
    assert not motion.account.task.any() and motion.account.steps == 1


def test_a_step_by_hand():
    """Task −.1·(−1, 1), resource −.1·(0, −2); then a sum of 1."""
    selector, motion = made(.1)
    motion.along(selector, vector(-1, -1), vector(-1, 1), still=False)
    torch.testing.assert_close(selector.numbers, vector(.3, .5))
    motion.meet(selector, lambda a: 1 - a.sum())
    torch.testing.assert_close(selector.numbers, vector(.4, .6))
    motion.book(selector)
    torch.testing.assert_close(motion.account.task, vector(.1, -.1))
    torch.testing.assert_close(motion.account.resource, vector(.1, .3))


def test_the_shift_is_scaled_as_the_step():
    """A number with half the gradient takes twice the shift."""
    selector, motion = made('auto')
    motion.auto.length = 100
    motion.along(selector, vector(2, 1), vector(2, 1), still=False)
    torch.testing.assert_close(selector.numbers, vector(.18, .38))
    motion.meet(selector, lambda a: .86 - a.sum())
    torch.testing.assert_close(
        selector.numbers, vector(.28, .58), atol=1e-5, rtol=0)


def test_a_state_of_0_1_gets_an_empty_account():
    selector, motion = made(.1)
    motion.along(selector, vector(-1, 1), vector(-1, 1), still=False)
    motion.book(selector)
    old = motion.completed(dict(ratios=vector(0, 0)))
    motion.load(old)
    assert motion.account.steps == 0 and not motion.account.task.any()
    assert motion.completed(3) == 3  # refused elsewhere, by name
