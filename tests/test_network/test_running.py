# Copyright (c) dms_razor contributors. All rights reserved.
import copy
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from dms_razor.network import alone, call, tensors_of, untouched
from dms_razor.network.running import after_scripts
from dms_razor.trace import trace


def test_call():

    class Sum(nn.Module):

        def forward(self, x, y=1):
            return x + y

    assert call(Sum(), torch.tensor(2)) == 3
    assert call(Sum(), (torch.tensor(2), 3)) == 5
    assert call(Sum(), [torch.tensor(2)]) == 3
    assert call(Sum(), dict(x=4, y=5)) == 9
    assert call(Sum(), (1, 2), lambda model, *inputs: inputs) == (1, 2)


@dataclass
class Result:
    """What some networks return."""
    scores: torch.Tensor
    more: object = None


class Slotted:
    """An object without a dict."""
    __slots__ = ('value', 'unset')

    def __init__(self, value):
        self.value = value


def test_tensors_of_whatever_a_network_returns():
    a, b, c, d, e, f = (torch.full((), float(i)) for i in range(6))
    sample = BaseDataElement(feature=d)
    found = tensors_of(
        (a, [dict(x=b), None], Result(c,
                                      more='text'), OrderedDict(y=(sample, )),
         nn.Linear(2, 2), 3, SimpleNamespace(z=e), Slotted(f)))
    assert [float(t) for t in found] == [0, 1, 2, 3, 4, 5]


def test_tensors_of_something_that_holds_itself():
    a = torch.ones(1)
    loop = [a]
    loop.append(loop)
    assert tensors_of(loop) == [a]


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


@pytest.mark.parametrize('wrap, path', [
    (nn.DataParallel, 'model'),
    (lambda net: nn.Sequential(nn.DataParallel(net)), '0'),
])
def test_wrapped_networks_are_pointed_to_their_module(wrap, path):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(
            ValueError,
            match=f'wrapped in DataParallel.*itself, {path}.module, and wrap'):
        trace(wrap(net), torch.ones(1, 4))


class Keeping(nn.Linear):
    """Writes into everything that a module has."""

    def __init__(self):
        super().__init__(3, 3)
        self.last, self.calls, self.seen = None, [], dict(a=1)
        self.table = torch.zeros(2)
        self.left = 'here'

    def forward(self, x):
        self.last, self.new = x, x
        self.calls.append(x)
        self.seen.update(a=2, b=3)
        self.table += 1
        self.register_buffer('late', torch.ones(1))
        self.extra = nn.ReLU()
        self.hook = self.register_forward_hook(lambda m, i, o: None)
        del self.left
        return super().forward(x)


def test_what_a_forward_keeps_is_gone_afterwards():
    net = nn.Sequential(Keeping())
    keeping, calls, table = net[0], net[0].calls, net[0].table
    names = set(vars(keeping))
    for _ in range(2):
        with untouched(net):
            net(torch.ones(1, 3))
    assert set(vars(keeping)) == names
    assert keeping.last is None and keeping.left == 'here'
    assert keeping.calls is calls and calls == [] and keeping.seen == dict(a=1)
    assert keeping.table is table and table.tolist() == [0, 0]
    assert not list(net.buffers()) and len(list(net.modules())) == 2
    assert not keeping._forward_hooks


def test_norms_of_all_ranks_are_run_alone(monkeypatch):
    """As a batch norm; also a copy that is made meanwhile, with its own."""

    def waits(self, x):
        raise AssertionError('waits for the other ranks')

    monkeypatch.setattr(nn.SyncBatchNorm, 'forward', waits)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
    x = torch.randn(2, 3, 5, 5)
    plain = nn.BatchNorm2d(4)
    expected = plain(net[0](x))
    with alone(net):
        twin = copy.deepcopy(net)
        with alone(net):  # once more changes nothing
            assert torch.equal(net(x), expected)
        assert torch.equal(twin(x), expected)
        twin[1].weight.data.fill_(2.)
        torch.testing.assert_close(twin(x), 2 * expected)
    assert torch.equal(net[1].running_mean, plain.running_mean)
    assert not twin[1].running_mean.equal(torch.zeros(4))
    with pytest.raises(AssertionError, match='waits'):
        net(x)


class Own(nn.SyncBatchNorm):
    """Somebody's own."""

    def forward(self, x):
        return super().forward(x)


class Twice:
    """In front of a norm's own class, as masks are."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize('kind, factor', [
    (nn.SyncBatchNorm, 1),
    (Own, 1),
    (type('Masked', (Twice, nn.SyncBatchNorm), {}), 2),
])
def test_what_masks_a_synchronised_norm_stays_in_front(kind, factor):
    norm, x = kind(3).train(), torch.randn(4, 3, 2, 2)
    with alone(norm) as same:
        assert torch.allclose(same(x), factor * nn.BatchNorm2d(3)(x))
        copied = copy.deepcopy(norm)
        assert 'forward' not in vars(copied)
    assert type(norm) is kind


def test_scripted_modules_are_told_with_their_keywords():
    """Where Python calls them, also inside others, and nowhere later."""

    class Scale(nn.Module):

        def forward(self, x, by: float = 1.):
            return x * by

    scripted, told, x = torch.jit.script(Scale()), [], torch.ones(2)
    with after_scripts(lambda *call: told.append(call)):
        out = nn.Sequential(nn.ReLU(), scripted)(x)
        twice = scripted(x, by=2.)
    scripted(x)
    assert [call[0] for call in told] == [scripted, scripted]
    assert [call[2] for call in told] == [{}, dict(by=2.)]
    assert told[0][3] is out and told[1][3] is twice
    assert twice.tolist() == [2, 2]
