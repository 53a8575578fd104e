# Copyright (c) dms_razor contributors. All rights reserved.
"""Which parameter a weight comes from."""
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor.tracing.recorder import Recorder
from dms_razor.tracing.rules import RULES
from dms_razor.tracing.rules.weights import Weight, weight_of


class Net(nn.Module):

    def __init__(self, weight):
        super().__init__()
        self.fc, self.other = nn.Linear(6, 6), nn.Parameter(torch.rand(6, 6))
        self.weight, self.found = weight, None

    def forward(self, x):
        return F.linear(x, self.weight(self, x))


def found(weight):
    """What :func:`weight_of` says of the weight of the linear layer."""
    net, seen = Net(weight), []

    def linear(recorder, call):
        seen.append(weight_of(recorder, call.args[1]))
        return RULES['linear'](recorder, call)

    recorder = Recorder(net, {**RULES, 'linear': linear})
    recorder.run(lambda model, x: model(x), (torch.rand(2, 6), ))
    return seen[0]


def test_a_parameter_as_it_is_or_turned_round():
    assert found(lambda net, x: net.other) == Weight('other')
    assert found(lambda net, x: net.fc.weight) == Weight('fc.weight')
    turned = found(lambda net, x: net.other.t())
    assert (turned.name, turned.turned) == ('other', True)
    assert [turned.axis(axis) for axis in (0, 1)] == [1, 0]
    assert len(turned.chain) == 1


def test_what_is_computed_from_parameters_alone():
    scaled = found(lambda net, x: net.other * 2 - net.other.mean(1, True))
    assert scaled.name == 'other' and len(scaled.chain) == 3
    assert found(lambda net, x: net.other * x.mean()) is None
    assert found(lambda net, x: net.other.softmax(0)) is None
    assert found(lambda net, x: torch.rand(6, 6)) is None
