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


def test_rows_that_a_matrix_of_ones_and_zeros_picks():
    """Two tables of places, one for rows and one for columns (Gemma 4)."""

    def middle(net, x):
        places = torch.arange(64)
        places = torch.stack([places // 8, places % 8]).expand(len(x), 2, -1)
        picks = nn.functional.one_hot(places, 9).to(net.tables)
        found = (picks @ net.tables).sum(1).transpose(1, 2).view_as(x)
        return net.out(x + found)

    space = check(
        middle, {
            'stem': 16,
            'out': 8
        },
        tables=nn.Parameter(torch.randn(2, 9, 16)),
        **OUT)
    site, = space.slice_sites['tables']
    assert (site.axis, len(site.index)) == (2, 16)
