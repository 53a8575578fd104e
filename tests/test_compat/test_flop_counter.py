# Copyright (c) dms_razor contributors. All rights reserved.
"""Attention in MMEngine's FlopAnalyzer, counted by hand."""
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn
from torch.nn import functional as F

from dms_razor.compat.shims import flop_analyzer


class Attention(nn.Module):
    """4 heads; 5 queries of 6 dimensions, 7 keys, values of 3."""

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_products_are_counted():
    inputs = (torch.rand(2, 4, 5, 6), torch.rand(2, 4, 7,
                                                 6), torch.rand(2, 4, 7, 3))
    by_hand = 2 * 4 * (5 * 7 * 6 + 5 * 7 * 3)
    assert flop_analyzer(Attention(), inputs).total() == by_hand
    assert FlopAnalyzer(Attention(), inputs).total() == 0, 'no longer needed'


def test_other_operators_count_as_before():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(),
        nn.Linear(8 * 4, 10, bias=False))
    analyzer = flop_analyzer(model, torch.rand(1, 3, 4, 4))
    assert analyzer.total() == 8 * 3 * 9 * 4 + 320
