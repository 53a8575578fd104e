# Copyright (c) dms_razor contributors. All rights reserved.
"""What the benchmark counts itself, against numbers by hand."""
import pytest
import torch
from torch import nn


def test_bytes_that_are_held(load_tool):
    """At the second layer's result: 8 and 6 channels of 16 positions."""
    tool = load_tool('benchmark_latency')
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1))
    assert tool.held(net, (torch.zeros(1, 3, 4, 4), )) == 4 * 16 * (8 + 6)


def test_ranks_of_the_middle_third_alone(load_tool):
    tool = load_tool('benchmark_latency')
    points = dict(
        macs=[9, 1, 2, 4, 5, 6, 8, 3, 7],
        measured=[9., 2., 1., 4., 5., 6., 7., 3., 8.],
        predicted=[9., 1., 2., 6., 5., 4., 8., 3., 7.])
    assert tool.middle_third(points) == pytest.approx(-1)
