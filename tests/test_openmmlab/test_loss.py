# Copyright (c) dms_razor contributors. All rights reserved.
import math

import pytest
import torch
from mmrazor.registry import MODELS


@pytest.fixture
def loss():
    return MODELS.build(
        dict(type='mmrazor.ResourceConstraintLoss', loss_weight=2.))


def test_log_of_the_excess(loss):
    current = torch.tensor(300., requires_grad=True)
    value = loss(current, 100.)
    assert value.item() == pytest.approx(2 * math.log(3))
    value.backward()
    assert current.grad.item() == pytest.approx(2 / 300)


@pytest.mark.parametrize('current', [100., 20.])
def test_nothing_to_pay_within_the_target(loss, current):
    assert loss(torch.tensor(current), 100.).item() == 0


@pytest.mark.parametrize('weight', [-1., float('nan'), '1'])
def test_a_weight_that_would_not_pull_down(weight):
    with pytest.raises(ValueError, match='loss_weight'):
        MODELS.build(
            dict(type='mmrazor.ResourceConstraintLoss', loss_weight=weight))


def test_it_is_no_parameter_of_the_network(loss):
    assert not loss.state_dict() and 'loss_weight=2.0' in repr(loss)
