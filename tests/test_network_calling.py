# Copyright (c) dms_razor contributors. All rights reserved.
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dms_razor.network import (call, describe_inputs, evaluating, make_inputs,
                               tensors_in, to_device_of)
from dms_razor.subnet import SubnetError


def test_call():

    class Sum(nn.Module):

        def forward(self, x, y=1):
            return x + y

    assert call(Sum(), torch.tensor(2)) == 3
    assert call(Sum(), (torch.tensor(2), 3)) == 5
    assert call(Sum(), [torch.tensor(2)]) == 3
    assert call(Sum(), dict(x=4, y=5)) == 9
    assert call(Sum(), (1, 2), lambda model, *inputs: inputs) == (1, 2)


def test_evaluating_puts_flags_back_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(KeyError):
        with evaluating(model):
            assert not any(m.training for m in model.modules())
            assert not torch.is_grad_enabled()
            raise KeyError
    assert [m.training for m in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_tensors_in():

    @dataclass
    class Output:
        logits: torch.Tensor
        name: str

    one, two, three = torch.ones(3).unbind()
    found = tensors_in([one, dict(a=two, b='text'), Output(three, 'x'), None])
    assert [id(t) for t in found] == [id(one), id(two), id(three)]


def test_inputs_survive_a_manifest():
    inputs = (torch.rand(2, 3), dict(ids=torch.tensor([[1, 2]]), n=4), None)
    description = describe_inputs(inputs)
    assert description == [
        dict(shape=[2, 3], dtype='float32'),
        dict(
            named=dict(ids=dict(shape=[1, 2], dtype='int64'), n=dict(
                value=4))),
        dict(value=None)
    ]
    first, second, third = make_inputs(description, nn.Linear(1, 1))
    assert torch.equal(first, torch.zeros(2, 3)) and third is None
    assert second['ids'].dtype == torch.int64 and second['n'] == 4
    with pytest.raises(SubnetError, match='hold a set, which a manifest'):
        describe_inputs([{1}])


def test_inputs_go_where_the_network_is():
    model = nn.Linear(2, 2, device='meta')
    x, rest = to_device_of(model, [torch.ones(1), dict(y=torch.ones(1), n=1)])
    assert x.device.type == rest['y'].device.type == 'meta'
    assert rest['n'] == 1
    made = make_inputs(dict(shape=[1], dtype='float32'), model)
    assert made.device.type == 'meta'
