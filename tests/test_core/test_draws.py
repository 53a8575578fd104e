# Copyright (c) dms_razor contributors. All rights reserved.
"""Noise that a resumed search draws again."""
import copy
import math

import pytest
import torch

from dms_razor.core import Layout, Unit, initial_order
from dms_razor.core.draws import Draws


def draws(seed=0, count=6):
    return Draws(count, seed, torch.device('cpu'))


def test_they_are_those_of_the_seed_and_of_nothing_else():
    one, other = draws(), draws()
    torch.rand(5)
    assert one.uniform.equal(other.uniform)
    assert not one.uniform.equal(draws(1).uniform)
    before = one.uniform
    one.draw(), other.draw()
    assert one.uniform.equal(other.uniform)
    assert not one.uniform.equal(before)


def test_they_have_nothing_to_do_with_the_first_order():
    layout = Layout([Unit('a', 'width', 6)])
    assert not draws().uniform.argsort().equal(initial_order(layout, 0))


def test_they_go_on_from_a_state():
    through = draws()
    for _ in range(3):
        through.draw()
    resumed = draws(7)
    resumed.load(through.state())
    assert resumed.uniform.equal(through.uniform)
    copied = copy.deepcopy(resumed)
    for each in (through, resumed, copied):
        each.draw()
    assert resumed.uniform.equal(through.uniform)
    assert copied.uniform.equal(through.uniform)


def test_what_is_no_state_is_refused():
    one = draws()
    before = one.uniform
    with pytest.raises(ValueError, match='"draws".*no state'):
        one.load(torch.zeros_like(one.state()))
    assert one.uniform is before


def test_the_noise_is_gumbel_and_logistic():
    noise = draws(count=200_000)
    assert noise.uniform.min() > 0 and noise.uniform.max() < 1
    # Euler's constant and π²/6; 0 and π²/3.
    assert noise.gumbel.mean().item() == pytest.approx(.5772, abs=.02)
    assert noise.gumbel.var().item() == pytest.approx(math.pi**2 / 6, rel=.02)
    assert noise.logistic.mean().item() == pytest.approx(0, abs=.02)
    assert noise.logistic.var().item() == pytest.approx(
        math.pi**2 / 3, rel=.02)
