# Copyright (c) dms_razor contributors. All rights reserved.
"""Which modules are experts, and that they run as one operation."""
import pytest
import torch
from expert_nets import WORDS, Experts, mixture
from torch import nn
from torch.overrides import TorchFunctionMode

from dms_razor.adapters.experts import (OPERATION, experts_as_operations,
                                        is_experts, numbers_of)


def changed(**attributes):
    module = Experts(3, 8, 4)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def test_what_experts_are():
    assert is_experts(Experts(3, 8, 4))
    assert is_experts(changed(is_transposed=False, has_bias=False))


@pytest.mark.parametrize('other', [
    dict(is_transposed=True),
    dict(has_bias=True),
    dict(has_gate=False),
    dict(is_concatenated=False),
    dict(has_post_expert_norm=True),
    dict(_is_expert_parallel=True),
    dict(act_fn=nn.PReLU()),
    dict(gate_up_proj=nn.Parameter(torch.zeros(3, 8, 7))),
    dict(gate_up_proj=None),
    dict(down_proj=nn.Parameter(torch.zeros(8, 4))),
])
def test_what_others_are(other):
    assert not is_experts(changed(**other))


def test_two_parameters_of_these_names_alone_are_no_experts():
    module = nn.Module()
    for name, own in Experts(3, 8, 4).named_parameters():
        setattr(module, name, own)
    assert not is_experts(module) and not is_experts(nn.Linear(2, 2))


def test_numbers_are_told_by_name_and_value():
    found = numbers_of(Experts(3, 8, 4), experts=3, read=8, width=4)
    assert found == dict(
        num_experts='experts', hidden_dim='read', intermediate_dim='width')
    assert numbers_of(
        Experts(3, 8, 4), experts=5, read=8) == dict(hidden_dim='read')


class Seen(TorchFunctionMode):
    """Names of all functions that it sees."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(getattr(func, '__name__', ''))
        return func(*args, **(kwargs or {}))


def test_each_runs_as_one_operation_and_is_as_it_was():
    net = mixture()
    own = net.layers[1].mlp.experts
    expected = net(WORDS)

    def forward(*args, **kwargs):  # as a hook of accelerate puts there
        return Experts.forward(own, *args, **kwargs)

    vars(own)['forward'] = forward
    with experts_as_operations(net), Seen() as seen:
        found = net(WORDS)
    assert torch.equal(found, expected)
    assert seen.names.count(OPERATION) == 2 and 'index_add_' not in seen.names
    assert vars(own)['forward'] is forward
    assert 'forward' not in vars(net.layers[0].mlp.experts)
    with experts_as_operations(net):  # no mode: nothing is seen, all runs
        assert torch.equal(net(WORDS), expected)
    with pytest.raises(ZeroDivisionError):
        with experts_as_operations(net):
            1 / 0
    assert 'forward' not in vars(net.layers[0].mlp.experts)


def test_scripted_modules_are_none():
    assert not is_experts(torch.jit.script(nn.Linear(2, 2)))
