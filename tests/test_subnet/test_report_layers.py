# Copyright (c) dms_razor contributors. All rights reserved.
from dataclasses import asdict

import torch
from torch import nn

from dms_razor import Search
from dms_razor.subnet import count_macs, slice_model
from dms_razor.subnet.report import compare_layers, is_layer, width
from dms_razor.subnet.summary import PRODUCTS, products
from .helpers import images, net, some_keep, space


def test_side_by_side():
    model = net()
    subnet = slice_model(model, space(), some_keep())
    layers = compare_layers(model, subnet, ['stage.1'],
                            count_macs(model, images(1)),
                            count_macs(subnet, images(1)))
    found = {layer.name: layer for layer in layers}
    assert list(found) == [
        'stem', 'stage.0.conv1', 'stage.0.conv2', 'stage.1.conv1',
        'stage.1.conv2', 'depthwise', 'expand', 'grouped', 'last', 'fc', 'twin'
    ]  # and neither norms nor the network's own layer scale
    grouped = found['grouped']
    assert grouped.inputs == (12, 6) and grouped.outputs == (8, 4)
    assert grouped.macs == (9 * 6 * 8 * 16, 9 * 3 * 4 * 16)
    assert grouped.params == (9 * 6 * 8 + 8, 9 * 3 * 4 + 4)
    assert grouped.removed is None and grouped.type == 'Conv2d'
    gone = found['stage.1.conv2']
    assert gone.removed == 'stage.1'
    assert gone.outputs == (8, 0) and gone.inputs == (6, 0)
    assert gone.macs == (9 * 6 * 8 * 64, 0) and gone.params[1] == 0
    assert found['fc'].inputs == (64, 32) and found['fc'].outputs == (5, 5)
    assert asdict(gone)['outputs'] == (8, 0)


def test_width_of_other_modules():
    assert width(None) == (0, 0)
    assert width(nn.ConvTranspose2d(3, 6, 2)) == (3, 6)
    assert width(nn.Bilinear(3, 4, 5)) == (3, 5)
    attention = nn.MultiheadAttention(4, 2)
    assert width(attention) == (4, attention.in_proj_weight.shape[0])
    assert width(nn.Embedding(7, 3)) == (3, 7)
    assert torch.is_tensor(attention.in_proj_weight)


def test_what_is_a_layer():
    assert is_layer(nn.Conv2d(3, 3, 1, groups=3), 0)
    assert is_layer(nn.MultiheadAttention(4, 2), 9)
    assert not is_layer(nn.BatchNorm2d(3), 0)
    assert not is_layer(nn.Softmax(), 9)
    assert not is_layer(nn.Embedding(7, 3), 0)


class Attention(nn.Module):
    """Its products have no weights; they are most of it for many words."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(x.transpose(1, 2).flatten(2))


def test_the_layers_of_attention_add_up_to_the_whole(tmp_path):
    model = nn.Sequential(nn.Linear(3, 8), Attention(), nn.Linear(8, 2))
    search = Search(model, torch.randn(1, 6, 3), target=.6)
    export = search.export(tmp_path / 'subnet', picture=False)
    report = export.report.to_dict()
    # two products of 6 × 6 words, each 8 dims wide over both heads
    before, after = products(report)
    assert before == 2 * 6 * 6 * 8
    for which, total in ((0, report['macs']['supernet']),
                         (1, report['macs']['counted'])):
        rest = (before, after)[which]
        assert sum(x['macs'][which] for x in report['layers']) + rest == total
    row = f'{PRODUCTS} |  |  |  | {before} ⇒ {after} |'
    assert row in (export.path / 'report.md').read_text(encoding='utf-8')
    page = (export.path / 'report.html').read_text(encoding='utf-8')
    assert f'<td>{PRODUCTS}</td>' in page
