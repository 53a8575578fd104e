# Copyright (c) dms_razor contributors. All rights reserved.
"""Proofs on smaller images, where the network runs the same operations."""
import pytest
import torch
from torch import nn

from dms_razor import trace as trace_package
from dms_razor.network import run_model
from dms_razor.proof.smaller import smaller_inputs
from dms_razor.trace import record, trace
from dms_razor.tracing.training import TrainMode


class Net(nn.Module):
    """Two convolutions, something between them, a head."""

    def __init__(self, between=lambda net, x: x):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.extra, self.head = nn.ReLU(), nn.Linear(8, 4)
        self.aux, self.between = nn.Linear(8, 4), between

    def forward(self, x):
        x = self.between(self, self.first(x).relu())
        x = self.second(x).relu().mean((2, 3))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


SAME = dict(
    convolutions=lambda net, x: x,
    pooled=lambda net, x: nn.functional.adaptive_avg_pool2d(x, 5),
    by_its_size=lambda net, x: x.flatten(2).view(x.shape))
OTHER = dict(
    positions=lambda net, x: x + torch.ones(1, 8, 190, 190),
    a_branch=lambda net, x: net.extra(x) if x.shape[-1] > 100 else x,
    a_pad=lambda net, x: x
    if x.shape[-1] > 50 else nn.functional.pad(x, (0, 1, 0, 1)))


def found_for(net, inputs):
    net.eval()
    recorder = record(net, inputs, run_model)
    training = TrainMode(recorder, run_model)
    training.record(inputs, None, None)
    return smaller_inputs(recorder, inputs, run_model, training), training


@pytest.mark.parametrize('case', SAME)
def test_the_smallest_images_with_the_same_operations(case):
    image = torch.randn(1, 3, 192, 192)
    (found, ), training = found_for(Net(SAME[case]), (image, ))
    assert torch.equal(found, image[..., ::4, ::4])  # 48: the least side
    assert training.inputs[0].shape == (2, 3, 48, 48)


@pytest.mark.parametrize('case', OTHER)
def test_other_operations_keep_the_size(case):
    image = torch.randn(1, 3, 192, 192)
    (found, ), training = found_for(Net(OTHER[case]), (image, ))
    assert found.shape[-1] == (96 if case == 'a_pad' else 192)
    assert training.inputs[0].shape[-1] == found.shape[-1]


@pytest.mark.parametrize('shape', [(1, 3, 90, 192), (1, 3, 99, 99)])
def test_small_or_odd_images_stay(shape):
    image = torch.randn(shape)
    assert found_for(Net(), (image, ))[0][0] is image


def test_the_space_is_the_same_and_costs_are_of_the_example(monkeypatch):
    net, image = Net(), torch.randn(1, 3, 192, 192)
    plain = trace(net, image)
    monkeypatch.setattr(trace_package, 'DEAR', 1)
    seen = []
    net.first.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[-1]))
    dear = trace(net, image)
    assert 48 in seen and dear.proof.units == plain.proof.units == 2
    assert dear.resource.supernet() == plain.resource.supernet()
    assert dear.proof.text().startswith(
        '2 units on Net with inputs of 1 × 3 × 48 × 48, 3 subnets')
    assert dear.training == plain.training and 'proved' in dear.training
    assert dear.input_shape == (1, 3, 192, 192)


def test_stated_probe_inputs_are_taken_as_they_are(monkeypatch):
    net, image = Net(), torch.randn(1, 3, 192, 192)
    monkeypatch.setattr(trace_package, 'DEAR', 1)
    monkeypatch.setattr(trace_package, 'smaller_inputs', None)
    assert trace(net, image, probe_inputs=image).proof.units == 2
