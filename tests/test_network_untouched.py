# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from torch import nn

from dms_razor.network import untouched


class Frozen(nn.BatchNorm1d):
    """Its ``train`` does more than set a flag."""

    def train(self, mode=True):
        self.weight.requires_grad_(not mode)
        return super().train(mode)


@pytest.mark.parametrize('fail', [False, True])
def test_everything_is_put_back(fail):
    net = nn.Sequential(nn.Dropout(), Frozen(4))
    net.train()
    net[0].training = False
    mean = net[1].running_mean
    before = mean.clone(), torch.get_rng_state()
    try:
        with untouched(net):
            assert not any(m.training for m in net.modules())
            assert not torch.is_grad_enabled()
            mean.add_(1)
            net[1].running_mean = mean * 2
            torch.rand(5)
            if fail:
                raise KeyError
    except KeyError:
        assert fail
    assert torch.is_grad_enabled()
    assert [m.training for m in net.modules()] == [True, False, True]
    assert net[1].running_mean is mean and torch.equal(mean, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert not net[1].weight.requires_grad


def test_the_body_draws_the_same_numbers_each_time():
    net = nn.Linear(2, 2)
    found = []
    for _ in range(2):
        torch.rand(3)
        with untouched(net):
            found.append(torch.rand(4))
    assert torch.equal(*found)
