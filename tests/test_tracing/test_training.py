# Copyright (c) dms_razor contributors. All rights reserved.
"""What a network runs in train mode alone; the truth is a sliced copy."""
import copy
import logging

import numpy as np
import pytest
import torch
from equality import assert_counts, keep_of, randomise, reasons
from small_nets import IMAGES, Block, build, conv, depths, widths
from torch import nn
from torch.nn import functional as F
from trained_nets import assert_true_in_training

from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace
from dms_razor.tracing.training import SAME, TrainMode, _alike

OUT = dict(out=conv(16, 8))
ALONE = 'it runs in train mode alone'


def middle(extra, **layers):
    """``extra(net, x)`` before the last layer, in train mode alone."""

    def run(net, x):
        x = extra(net, x) if net.training else x
        return net.out(x)

    return build(run, **layers, **OUT)


class Returning(nn.Module):
    """A network whose train mode returns more."""

    def __init__(self, more):
        super().__init__()
        self.stem, self.norm = conv(3, 16), nn.BatchNorm2d(16)
        self.out, self.head = conv(16, 8), nn.Linear(8, 5)
        self.aux = nn.Sequential(
            conv(16, 12), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(),
            conv(12, 5))
        self.more = more

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        scores = self.head(F.relu(self.out(x)).mean((2, 3)))
        return self.more(self, x, scores) if self.training else scores


@pytest.mark.parametrize('more', [
    lambda net, x, scores: (scores, net.aux(x)),
    lambda net, x, scores: dict(scores=scores, aux=net.aux(x).mean((2, 3))),
    lambda net, x, scores: [scores, *(net.aux(x + shift) for shift in (0, 1))],
])
def test_auxiliary_heads_are_masked_and_cost_nothing(more):
    net = Returning(more)
    space = assert_true_in_training(net)
    assert widths(space) == {'stem': (16, 1), 'out': (8, 1)}
    assert 'aux.0.weight' in space.slice_sites
    assert ALONE in reasons(space)['aux.0']
    keep = keep_of(space, lambda unit: unit.size // 2)
    subnet = slice_model(net, space, keep)
    assert subnet.aux[0].weight.shape == (12, 8, 3, 3)
    assert_counts(subnet, space, keep, IMAGES[:1])
    assert space.training == ('recorded and proved on the example, repeated '
                              'to two samples')


def test_without_the_second_recording_nothing_breaks(monkeypatch):
    monkeypatch.setattr(TrainMode, 'record', lambda self, *args: None)
    net = Returning(lambda net, x, scores: (scores, net.aux(x)))
    space = assert_true_in_training(net)
    assert 'aux.0.weight' not in space.slice_sites
    assert widths(space) == {'out': (8, 1)}
    assert 'eval mode did not run it' in reasons(space)['aux']
    assert '"aux" was not run' in reasons(space)['stem']


def test_features_that_are_centred_in_training_stay():
    space = assert_true_in_training(
        middle(lambda net, x: x - x.mean(1, keepdim=True)))
    assert widths(space) == {'out': (8, 1)}
    assert 'mixes channels' in reasons(space)['stem']


def test_code_with_widths_in_training_is_found_by_the_proof():
    space = assert_true_in_training(
        middle(lambda net, x: net.more(x) / x.shape[1] + x, more=conv(16, 16)))
    assert widths(space) == {'out': (8, 1)}
    assert 'changes what the network computes' in reasons(space)['stem']


def test_a_layer_of_training_joins_the_stream():
    space = assert_true_in_training(
        middle(lambda net, x: x + net.more(x), more=conv(16, 16)))
    assert widths(space) == {'stem': (16, 1), 'out': (8, 1)}
    assert {site.name
            for site in space.slice_sites['more.weight']} == {'more.weight'}


class Supervised(Block):
    """A block that returns its branch too while it is trained."""

    def forward(self, x):
        out = super().forward(x)
        return (out, out.mean((2, 3))) if self.training else out


def test_of_blocks_that_return_more_the_branches_go():

    def run(net, x):
        for block in net.blocks:
            x = block(x)
            if net.training:
                x, _ = x
        return net.out(x)

    net = build(run, blocks=nn.Sequential(Supervised(), Supervised()), **OUT)
    space = assert_true_in_training(net)
    assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
    assert all(block.branch for block in space.blocks)
    assert 'blocks.0.conv1' in widths(space)


class DropPath(nn.Module):
    """Drops the whole branch of a sample."""
    stay = .8

    def forward(self, x):
        if not self.training:
            return x
        noise = x.new_empty((len(x), 1, 1, 1)).bernoulli_(self.stay)
        return x * noise.div_(self.stay)


class Dropped(Block):

    def __init__(self):
        super().__init__()
        self.drop, self.dropout = DropPath(), nn.Dropout(.3)

    def forward(self, x):
        branch = self.conv2(self.dropout(F.relu(self.conv1(x))))
        return F.relu(x + self.drop(self.norm(branch)))


def test_blocks_with_noise_can_be_removed(monkeypatch):
    monkeypatch.setattr(DropPath, 'stay', 1.)  # the copies draw differently
    net = build(
        lambda net, x: net.out(net.blocks(x)),
        blocks=nn.Sequential(Dropped(), Dropped()),
        **OUT)
    space = assert_true_in_training(net)
    assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
    assert 'proved' in space.training


@pytest.mark.parametrize('noise', [
    lambda net, x: x * (torch.rand_like(x) > .2),
    lambda net, x: x + torch.randn_like(x),
    lambda net, x: x * torch.empty_like(x).bernoulli_(.9) / .9,
    lambda net, x: F.dropout2d(x, .5, True),
])
def test_noise_for_each_channel_is_no_difference(noise):
    net = middle(noise)
    space = trace(net, IMAGES[:1])
    assert widths(space) == {'stem': (16, 1), 'out': (8, 1)}
    assert 'proved' in space.training


class Attention(nn.Module):
    """Attention with a bias for each head, and dropout."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.rand(4, 9, 9))
        self.drop = nn.Dropout(.1)

    def forward(self, x):
        x = self.qkv(x).view(len(x), 9, 3, self.heads, 4)
        q, k, v = x.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) + self.bias).softmax(-1)
        if self.training:
            scores = self.drop(scores)
        return self.proj((scores @ v).transpose(1, 2).reshape(len(x), 9, -1))


def test_attention_that_both_modes_run_is_one():
    net = nn.Sequential(nn.Linear(6, 16), Attention(), nn.Linear(16, 3))
    tokens = torch.randn(2, 9, 6)
    space = assert_true_in_training(net, tokens)
    assert [u.name for u in space.units if u.kind == 'heads'] == ['1.heads']
    assert {'0', '1.proj'} <= set(widths(space))


def test_a_norm_that_a_head_of_training_reads_as_well_carries_no_masks():
    net = Returning(lambda net, x, scores: (scores, net.aux(x)))
    space = trace(net, IMAGES[:1])
    assert {'out', 'aux.0'} <= {site.module for site in space.mask_sites}
    assert 'norm' not in {site.module for site in space.mask_sites}
    # In eval mode alone the mask would be cheapest there.
    plain = copy.deepcopy(net)
    plain.more = lambda net, x, scores: scores
    del plain.aux
    assert 'norm' in {site.module for site in trace(plain, IMAGES).mask_sites}


class Either(nn.Module):
    """Each mode has a layer of its own behind the norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = conv(3, 16), nn.BatchNorm2d(16)
        self.out, self.aux = conv(16, 8), conv(16, 8)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        return self.aux(x) if self.training else self.out(x)


def test_masks_of_two_modes_do_not_meet_in_one_norm():
    # There they would be multiplied: a soft mask of a half would be a quarter.
    space = assert_true_in_training(Either())
    assert {site.module for site in space.mask_sites} == {'out', 'aux'}


def test_networks_that_nobody_asks_for_the_mode_run_once():
    runs = []

    def run(net, x):
        runs.append(torch.is_grad_enabled())
        return net.out(net.norm(x))

    net = build(run, norm=nn.BatchNorm2d(16), drop=nn.Dropout(), **OUT)
    space = trace(net, IMAGES[:1], check=False)
    assert space.training == 'its code runs the same operations as eval mode'
    # the recording, the trial copy, a look at its memory and the count
    assert len(runs) == 4


class Switched(nn.Module):
    """A switch that ``train()`` turns, read without asking for the mode."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = conv(3, 16), conv(16, 8)
        self.aux, self.more = conv(16, 5), False

    def train(self, mode=True):
        self.more = mode
        return super().train(mode)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return (self.out(x), self.aux(x)) if self.more else self.out(x)


def test_what_train_switches_is_seen_and_put_back():
    net = Switched().eval()
    space = assert_true_in_training(net)
    assert widths(space) == {'stem': (16, 1)}
    assert not net.more and not any(m.training for m in net.modules())


class Losses(nn.Module):
    """Train mode takes targets and returns losses, as detectors do."""

    def __init__(self):
        super().__init__()
        self.stem, self.more = conv(3, 16), conv(16, 12)
        self.head, self.aux = nn.Linear(12, 5), nn.Linear(16, 5)

    def forward(self, x, targets=None):
        x = F.relu(self.stem(x))
        scores = self.head(F.relu(self.more(x)).mean((2, 3)))
        if not self.training:
            return scores
        if targets is None:
            raise ValueError('targets should not be none')
        return dict(
            loss=F.cross_entropy(scores, targets),
            aux=F.cross_entropy(self.aux(x.mean((2, 3))), targets))


def test_targets_are_given():
    targets = torch.tensor([1, 4])
    space = assert_true_in_training(
        Losses(), (IMAGES, targets), train_inputs=(IMAGES, targets))
    assert widths(space) == {'stem': (16, 1), 'more': (12, 1)}
    assert space.training == ('recorded and proved on train_inputs and '
                              'train_forward')


def test_train_mode_is_called_in_its_own_way():

    def train(net, x):
        return net(x, torch.zeros(len(x), dtype=torch.long))

    space = assert_true_in_training(Losses(), call=train, train_forward=train)
    assert 'aux.weight' in space.slice_sites


def test_train_mode_that_cannot_run_is_told(caplog):
    with caplog.at_level(logging.WARNING, 'dms_razor'):
        space = trace(Losses(), IMAGES[:1])
    assert len(caplog.records) == 1
    for text in (caplog.text, space.training):
        assert 'ValueError: targets should not be none' in text
    # The head of training, and what it may read, is as it was.
    assert set(widths(space)) == {'more'}
    assert 'eval mode did not run it' in reasons(space)['aux']


def test_a_network_that_trains_otherwise_each_time_is_told():
    calls = []

    def drift(net, x):
        calls.append(1)
        return x.exp()**len(calls)

    space = trace(middle(drift), IMAGES[:1])
    assert 'two runs of the network' in space.training
    assert widths(space) == {'stem': (16, 1), 'out': (8, 1)}


def test_the_network_is_as_it_was():

    class Writing(Returning):

        def __init__(self):
            super().__init__(None)
            self.steps, self.kept = 0, []
            self.more = self.write

        def write(self, net, x, scores):
            net.steps += 1
            net.kept.append(x)
            net.cache = x
            net.aux[0].weight.data.mul_(.5)
            net.register_buffer('late', x.mean())
            return scores, net.aux(x)

    net = randomise(Writing()).eval()
    before = copy.deepcopy(net.state_dict())
    names = set(vars(net))
    seen = torch.get_rng_state()
    trace(net, IMAGES[:1])
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert set(vars(net)) == names and net.steps == 0 and net.kept == []
    assert torch.equal(seen, torch.get_rng_state())


class Asking(nn.Module):
    """Asks for the mode, and does what ``other`` says where it trains."""

    def __init__(self, other):
        super().__init__()
        self.stem, self.out, self.other = conv(3, 16), conv(16, 8), other
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x.reshape(len(x), 16, -1).reshape(len(x), 16, *x.shape[-2:])
        return self.out(self.other(x) if self.training else x[:, :16])


@pytest.mark.parametrize('other, same', [
    (lambda x: x[:, :16], True),
    (lambda x: x[:, :32], False),
    (lambda x: x[:, :16] * 2, False),
])
def test_the_same_operations_are_proved_once(other, same):
    """Flags, and sizes that grow with the samples, make no other network."""
    net = randomise(Asking(other))
    space = trace(net, IMAGES)
    assert (space.training == SAME) is same
    if not same:
        assert 'recorded and proved' in space.training


def test_arguments_that_cannot_be_compared_are_not_the_same():
    assert not _alike(np.zeros(2), np.zeros(2), False)
    assert not _alike(1, 2, False) and _alike(1, 2, True)
    assert _alike(True, False, False) and not _alike(True, 1, True)
    assert _alike(slice(2), slice(2), False)
    assert not _alike(slice(2), slice(3), True)
