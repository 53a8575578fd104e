# Copyright (c) dms_razor contributors. All rights reserved.
"""One update a step: closures, and optimizers in wrappers."""
import copy

import pytest
import torch
from torch import nn
from torch.distributed.fsdp._common_utils import _set_fsdp_flattened
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Optimizer
from toy_nets import make_search, plain_data, plain_net

from dms_razor.masking.optimizers import innermost, refuse_engines

DATA = plain_data()


def loss_of(search, net, scale=1.):
    return scale * search.loss(F.cross_entropy(net(DATA[0]), DATA[1]))


def closure_of(search, net, optimizer, seen=None):
    """As Lightning makes them: the loss before ``zero_grad``."""

    def closure():
        if seen is not None:
            seen.append(
                (search.bank.masks, [p.clone() for p in net.parameters()]))
        loss = loss_of(search, net)
        optimizer.zero_grad()
        loss.backward()
        return loss

    return closure


def state(search):
    return search.bank.ratios.clone(), search.bank.importance.clone()


@pytest.mark.parametrize('by_name', [False, True])
def test_a_closure_is_the_loop_written_otherwise(by_name):
    found = []
    for way in ('loop', 'closure'):
        net = copy.deepcopy(plain_net())
        search = make_search(net)
        optimizer = SGD(net.parameters(), lr=.05)
        search.attach(optimizer)
        closure = closure_of(search, net, optimizer)
        for _ in range(4):
            if way == 'loop':
                closure()
                optimizer.step()
            elif by_name:
                assert optimizer.step(closure=closure) > 0
            else:
                assert optimizer.step(closure) > 0
        assert search.bank.updates == search.step_count == 4
        found.append((*state(search), *net.parameters()))
    for a, b in zip(*found):
        assert torch.equal(a, b)


def test_of_many_calls_the_last_counts():
    """Importance after the first step: that of the last call's weights."""
    net = plain_net()
    search = make_search(net)
    optimizer, seen = LBFGS(net.parameters(), lr=.1, max_iter=4), []
    search.attach(optimizer)
    optimizer.step(closure_of(search, net, optimizer, seen))
    assert len(seen) > 1 and search.bank.updates == 1
    assert search.bank.masks.grad is None

    own = plain_net()
    alone = make_search(own)
    with torch.no_grad():
        for mine, theirs in zip(own.parameters(), seen[-1][1]):
            mine.copy_(theirs)
    loss_of(alone, own).backward()
    alone.step()
    torch.testing.assert_close(search.bank.importance, alone.bank.importance)
    assert float(search.bank.importance.abs().sum()) > 0


def test_what_was_accumulated_before_the_closure_counts():
    """Lightning runs the closure alone for all micro-batches but the last."""
    found = []
    for way in ('loop', 'closure'):
        net = plain_net()
        search = make_search(net)
        optimizer = SGD(net.parameters(), lr=.05)
        search.attach(optimizer)
        loss_of(search, net, .25).backward()

        def closure():
            loss = loss_of(search, net, .75)
            loss.backward()
            return loss

        if way == 'loop':
            closure()
            optimizer.step()
        else:
            optimizer.step(closure)
        found.append(state(search))
    for a, b in zip(*found):
        assert torch.equal(a, b)


def test_a_closure_that_fails_leaves_the_next_step_whole():
    net = plain_net()
    search = make_search(net)
    optimizer = SGD(net.parameters(), lr=.05)
    search.attach(optimizer)

    def broken():
        raise KeyError('no data')

    with pytest.raises(KeyError):
        optimizer.step(broken)
    loss_of(search, net).backward()
    optimizer.step()
    assert search.bank.updates == 1


class Accelerated(Optimizer):
    """Like accelerate's: an Optimizer that was never set up as one."""

    def __init__(self, optimizer):
        self.optimizer, self.sync = optimizer, True

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none=None):
        if self.sync:
            self.optimizer.zero_grad()

    def step(self, closure=None):
        if self.sync:
            self.optimizer.step(closure)


class Lightning:
    """Like LightningOptimizer: no Optimizer at all."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __getattr__(self, name):
        return getattr(self.optimizer, name)

    def step(self, closure=None):
        self.optimizer.step(closure)


def test_wrapped_optimizers():
    for wrap in (Accelerated, Lightning, lambda x: Lightning(Accelerated(x))):
        net = plain_net()
        search, inner = make_search(net), SGD(net.parameters(), lr=.05)
        optimizer = wrap(inner)
        search.attach(optimizer)
        assert innermost(optimizer) is inner
        loss_of(search, net).backward()
        optimizer.step()
        optimizer.step(closure_of(search, net, optimizer))
        assert search.bank.updates == 2
        search.close()
        assert not inner._optimizer_step_pre_hooks
        assert not inner._optimizer_step_post_hooks


def test_steps_that_accelerate_leaves_out_are_no_steps():
    net = plain_net()
    search = make_search(net)
    optimizer = Accelerated(SGD(net.parameters(), lr=.05))
    search.attach(optimizer)
    for number in range(4):
        optimizer.sync = number % 2 == 1
        loss_of(search, net, .5).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert search.bank.updates == 2


def test_what_is_no_optimizer():

    class Engine:

        def step(self):
            pass

    with pytest.raises(TypeError, match='Engine, which is no.*search.step'):
        make_search(plain_net()).attach(Engine())


@pytest.mark.parametrize('names_stay', [False, True])
def test_weights_of_fsdp1_are_refused(names_stay):
    """Flat parameters and, with ``use_orig_params``, views into them.

    torch makes them on an accelerator alone; these carry its own mark.
    """
    net = plain_net()
    search = make_search(net)
    weights = list(net.parameters())
    if not names_stay:
        weights = [nn.Parameter(torch.cat([w.flatten() for w in weights]))]
    for weight in weights:
        _set_fsdp_flattened(weight)
    with pytest.raises(ValueError, match='FSDP1.*DistributedDataParallel'):
        search.attach(SGD(weights, lr=.05))
    assert not search.attached


def test_engines_that_take_the_loop_over_are_refused():
    """By package and by the names of mmengine's and accelerate's wrappers.

    None of them is installed here, so classes bear their names.
    """
    net = plain_net()
    search, inner = make_search(net), SGD(net.parameters(), lr=.05)
    zero = type('Zero', (), dict(__module__='deepspeed.runtime.zero.stage'))
    for kind in (zero, type('DeepSpeedOptimizerWrapper', (Lightning, ),
                            {}), type('Mine', (zero, ), {})):
        engine = kind.__new__(kind)
        engine.optimizer = inner
        with pytest.raises(ValueError, match='ZeRO.*DistributedDataParallel'):
            search.attach(engine)
    for name in ('MMDeepSpeedEngineWrapper', 'DeepSpeedStrategy',
                 'ColossalAIModelWrapper'):
        with pytest.raises(ValueError, match=f'cannot follow {name}, of'):
            refuse_engines(net, type(name, (), {})())
    refuse_engines(net, inner, None)
    search.attach(inner)
