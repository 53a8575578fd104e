# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch

from dms_razor.core.bank import Bank
from dms_razor.core.gradient import drop_stale_gradient
from dms_razor.core.layout import Layout, Unit


@pytest.fixture
def bank():
    return Bank(Layout([Unit('a', 'width', 4)]))


def backward(bank, weight, factor=1.):
    ((bank.masks * weight).sum() * factor + bank.loss_anchor()).backward()


@pytest.mark.parametrize('cleared', [None, torch.zeros(4)])
def test_cleared_weights_mean_a_skipped_step(bank, cleared):
    weight = torch.ones(4, requires_grad=True)
    backward(bank, weight)
    weight.grad = cleared
    assert drop_stale_gradient(bank, [weight.grad])
    assert bank.masks.grad is None and bank.scale.grad is None


def test_accumulation_is_left_alone(bank):
    weight = torch.ones(4, requires_grad=True)
    unused = torch.ones(4, requires_grad=True)
    backward(bank, weight)
    assert not drop_stale_gradient(bank, [unused.grad, weight.grad])
    assert bank.masks.grad is not None


def test_nan_of_one_micro_batch_is_part_of_its_step(bank):
    weight = torch.ones(4, requires_grad=True)
    backward(bank, weight, float('nan'))
    assert not drop_stale_gradient(bank, [weight.grad])
    assert bank.masks.grad.isnan().all()


def test_without_weights_all_is_one_step(bank):
    backward(bank, torch.ones(4), float('inf'))
    assert not drop_stale_gradient(bank, [])


def test_nothing_to_drop(bank):
    assert not drop_stale_gradient(bank, [None])
