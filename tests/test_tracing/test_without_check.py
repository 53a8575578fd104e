# Copyright (c) dms_razor contributors. All rights reserved.
"""Rules alone: the self-check is off and can repair nothing.

With it on, a wrong rule would be mended before anything is compared. Networks
in which the self-check is what finds something are named, with the reason.
"""
import pytest
import torch
import transformer_nets
from equality import assert_counts, difference, keeps, randomise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_nets import IMAGES

from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace
from . import test_zoo
from .test_random_networks import RandomNetwork, plans

#: Networks with numbers of channels in their own code, which rules cannot see:
#: a block of Res2Net cuts pieces as wide as its own ``width``, and Swin shapes
#: the output of a stage by the ``num_features`` of the backbone.
NEEDS_CHECK = {
    'Res2Net-50': 'to have 1 channels, but got 4 channels',
    'Swin-T': r"shape '\[-1, 2, 2, 768\]' is invalid",
}
CONVOLUTIONAL = [
    name for name in test_zoo.NETWORKS
    if name not in ('ResNet-101', 'ResNet-152')  # nothing that 50 has not
]


def assert_holds(net, inputs, forward=None, number=1):
    """Every subnet as it is sliced computes what the masked one does."""
    randomise(net)
    space = trace(net, inputs, forward=forward, check=False)
    for keep in keeps(space, number):
        assert difference(net, space, keep, inputs, forward) < 1e-4
    assert_counts(slice_model(net, space, keep), space, keep, inputs, forward)


@pytest.mark.parametrize('name', CONVOLUTIONAL)
def test_convolutional_networks(name):
    net, image = test_zoo.build(name), torch.rand(1, 3, 64, 64)
    if name in NEEDS_CHECK:
        with pytest.raises(Exception, match=NEEDS_CHECK[name]):
            assert_holds(net, image, test_zoo.logits)
    else:
        assert_holds(net, image, test_zoo.logits)


@pytest.mark.parametrize('name', transformer_nets.BACKBONES)
def test_transformers(name):
    net, image = transformer_nets.build(name)
    if name in NEEDS_CHECK:
        with pytest.raises(Exception, match=NEEDS_CHECK[name]):
            assert_holds(net, image)
    else:
        assert_holds(net, image)


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow])
@given(plans, st.integers(0, 4))
def test_random_networks(plan, skip):
    torch.manual_seed(0)
    assert_holds(RandomNetwork(plan, min(skip, len(plan) - 1)), IMAGES)
