# Copyright (c) dms_razor contributors. All rights reserved.
"""A network is trained for a moment, and is then what it was."""
import copy
import random

import numpy as np
import pytest
import torch
from small_nets import IMAGES, build, conv
from torch import nn

from dms_razor.tracing.modes import (as_trained, mode_reads,
                                     train_changes_attributes, training_flags,
                                     two_samples, varied)


class Half(nn.Module):
    """A part of it never trains; its own ``train`` sees to that."""

    def __init__(self):
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.late, self.seen = False, [torch.zeros(1)]

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        for parameter in self.frozen.parameters():
            parameter.requires_grad = False
        return self

    def forward(self, x):
        self.late = True
        self.seen.append(x)
        with torch.no_grad():
            self.norm.weight.add_(1)
        self.frozen.extra = nn.Parameter(torch.ones(1))
        self.register_buffer('more', x)
        return self.frozen(self.norm(x)) + random.random() + np.random.rand()


def flags(net):
    return {path: module.training for path, module in net.named_modules()}


def test_everything_is_put_back():
    net = Half().eval()
    net.frozen.requires_grad_(True)
    state, before = copy.deepcopy(net.state_dict()), flags(net)
    vectors = torch.get_rng_state(), random.getstate(), np.random.get_state()
    outputs = []
    for _ in range(2):
        with as_trained(net):
            assert flags(net) == {'': True, 'norm': True, 'frozen': False}
            outputs.append(net(IMAGES) + torch.rand(()))
            assert net.norm.num_batches_tracked == 1
    assert torch.equal(*outputs)
    assert flags(net) == before and not net.late and len(net.seen) == 1
    assert net.frozen.weight.requires_grad
    after = net.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert torch.equal(torch.get_rng_state(), vectors[0])
    assert random.getstate() == vectors[1]
    assert (np.random.get_state()[1] == vectors[2][1]).all()


def test_an_error_leaves_no_mark_either():
    net = Half().eval()
    with pytest.raises(KeyError), as_trained(net):
        net(IMAGES)
        raise KeyError
    assert not net.late and not net.training and 'more' not in net._buffers


def test_a_network_that_trains_already_is_taken_as_it_stands():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    net[1].eval()
    found = training_flags(net)
    assert found == {'': True, '0': True, '1': False}
    twin = copy.deepcopy(net).eval()
    with as_trained(twin, found):
        assert flags(twin) == found
    assert training_flags(twin) is None
    with as_trained(twin):
        assert all(flags(twin).values())


class Turned(nn.Linear):
    """``train()`` turns a switch."""
    on = True

    def train(self, mode=True):
        self.on = mode
        return super().train(mode)


def test_switches_that_train_turns_are_found():
    assert train_changes_attributes(Turned(2, 2).eval())
    assert not train_changes_attributes(Turned(2, 2))
    assert not train_changes_attributes(Half().eval())
    assert not train_changes_attributes(nn.Linear(2, 2).eval())


def test_weights_that_train_writes_are_put_back():

    class Counted(nn.Linear):

        def train(self, mode=True):
            self.weight.data.add_(1)
            return super().train(mode)

    net = Counted(2, 2).eval()
    before = net.weight.detach().clone()
    assert train_changes_attributes(net)
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize('ask, path', [
    (lambda net, x: x if net.training else x, ''),
    (lambda net, x: x if net.norm.training else x, 'norm'),
    (lambda net, x: x if getattr(net.drop, 'training') else x, 'drop'),
])
def test_who_is_asked_for_the_mode(ask, path):
    net = build(
        lambda net, x: net.out(net.drop(net.norm(ask(net, x)))),
        norm=nn.BatchNorm2d(16),
        drop=nn.Dropout(),
        out=conv(16, 8))
    with mode_reads(net) as asked:
        net.eval()
        assert not net.training and not net.norm.training
        asked.clear()
        net(IMAGES)
        assert nn.Linear(1, 1).train().training
    assert list(asked) == [path]
    assert 'training' not in vars(nn.Module) and not net.drop.training


def test_nobody_asks():
    net = build(
        lambda net, x: net.out(net.drop(net.norm(x))),
        norm=nn.BatchNorm2d(16),
        drop=nn.Dropout(),
        out=conv(16, 8))
    script = torch.jit.script(nn.ReLU())
    net.add_module('script', script)
    with mode_reads(net) as asked:
        net(IMAGES)
        assert script(torch.ones(1)) == 1
    assert not asked


def test_a_flag_of_its_own_kind_counts_as_asked():
    kind = type('Always', (nn.ReLU, ), dict(training=True))
    with mode_reads(nn.Sequential(kind())) as asked:
        pass
    assert list(asked) == ['0']


def test_one_sample_is_repeated():
    image, scale = torch.rand(1, 3, 4), torch.tensor(2.)
    twice = two_samples((image, dict(scale=scale), [image], 'name'), 1)
    assert torch.equal(twice[0], torch.cat([image, image]))
    assert twice[1]['scale'] is scale and len(twice[2][0]) == 2
    assert twice[3] == 'name'
    batch = torch.rand(5, 3)
    assert two_samples(batch, 5) is batch


def test_samples_differ_but_hold_the_same_numbers():
    image, index = torch.rand(2, 3, 8), torch.arange(16).view(2, 8)
    found, numbers = varied((image, index))
    assert torch.equal(found[0], image[0])
    assert not torch.equal(found[1], image[1])
    assert torch.equal(found[1].flatten().sort()[0],
                       image[1].flatten().sort()[0])
    assert numbers[1].sort()[0].tolist() == list(range(8, 16))
    labels = torch.arange(4)
    assert varied(labels) is labels
