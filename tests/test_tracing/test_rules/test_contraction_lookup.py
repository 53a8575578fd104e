# Copyright (c) dms_razor contributors. All rights reserved.
"""Embeddings make channels."""
import torch
from small_nets import check, conv
from torch import nn

OUT = dict(out=conv(16, 8))


def add_classes(net, x):
    """A class embedding added to images."""
    return net.out(x + net.table(torch.arange(len(x)))[..., None, None])


def test_features_of_a_table_are_channels():
    space = check(
        add_classes, {
            'stem': 16,
            'out': 8
        }, table=nn.Embedding(5, 16), **OUT)
    site, = space.slice_sites['table.weight']
    assert site.axis == 1
    assert set(space.attributes['table']) == {'embedding_dim'}


def test_a_table_that_rescales_its_rows_stays():
    check(
        add_classes, {'out': 8}, {'stem': 'rescales its rows'},
        table=nn.Embedding(5, 16, max_norm=2.),
        **OUT)
