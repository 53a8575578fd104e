# Copyright (c) dms_razor contributors. All rights reserved.
import random

import numpy as np
import torch

from dms_razor.openmmlab.resume import get_random_state, set_random_state


def draw():
    return (random.random(), random.gauss(0, 1), np.random.rand(),
            np.random.randn(), torch.rand(()).item(), torch.randn(3).tolist())


def test_generators_go_on_as_they_would_have(tmp_path):
    draw()  # an odd number of Gaussians is left over in two generators
    torch.save(get_random_state(), tmp_path / 'state.pth')
    expected = draw()
    assert draw() != expected
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    set_random_state(state)
    assert draw() == expected
    assert random.getstate() and get_random_state().keys() == state.keys()


def test_reading_the_state_draws_nothing():
    before = get_random_state()
    after = get_random_state()
    assert all(
        torch.equal(before[name], after[name]) or name.endswith('gauss')
        for name in before)
