# Copyright (c) dms_razor contributors. All rights reserved.
"""Windows put together without the batch size: the same, and then gone."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from mmdet.models.backbones.swin import ShiftWindowMSA as DetectorAttention
from mmdet.models.backbones.swin import SwinTransformer as DetectorSwin
from mmpretrain.models import SwinTransformerV2
from mmpretrain.models.utils.attention import ShiftWindowMSA

from dms_razor.adapters.windows import windows_of_any_batch
from dms_razor.deploy import FORMATS, RawOutputs, difference, write_network

SMALL = dict(
    embed_dims=24,
    depths=[2, 2],
    num_heads=[2, 4],
    extra_norm_every_n_blocks=0)


def test_the_same_windows():
    windows = torch.randn(3 * 2 * 4, 5, 5, 7)
    expected = ShiftWindowMSA.window_reverse(windows, 10, 20, 5)
    mine = DetectorAttention(7, 1, 5)
    assert torch.equal(expected, mine.window_reverse(windows, 10, 20))
    with windows_of_any_batch():
        assert torch.equal(expected,
                           ShiftWindowMSA.window_reverse(windows, 10, 20, 5))
        assert torch.equal(expected, mine.window_reverse(windows, 10, 20))


def test_only_for_a_while():
    before = [
        vars(attention)['window_reverse']
        for attention in (ShiftWindowMSA, DetectorAttention)
    ]
    with pytest.raises(RuntimeError, match='while writing'):
        with windows_of_any_batch():
            assert vars(ShiftWindowMSA)['window_reverse'] is not before[0]
            raise RuntimeError('while writing')
    assert before == [
        vars(attention)['window_reverse']
        for attention in (ShiftWindowMSA, DetectorAttention)
    ]


@pytest.mark.parametrize('format', list(FORMATS))
@pytest.mark.parametrize(
    'swin', [
        lambda: SwinTransformerV2(
            SMALL, img_size=64, window_size=4, out_indices=(0, 1)),
        lambda: DetectorSwin(
            64, 3, 24, 4, 4, 2, [2, 2], [2, 4], (4, 2), (0, 1), init_cfg=None)
    ],
    ids=['v2', 'mmdet'])
def test_files_take_any_batch(swin, format, tmp_path):
    """The first version of mmpretrain's is in test_deploy."""
    images = torch.randn(2, 3, 64, 64)
    network = RawOutputs(swin(), images)
    path = write_network(network, images, tmp_path / f'a{FORMATS[format]}',
                         format)
    for batch in (1, 2, 5):
        others = torch.randn(batch, 3, 64, 64)
        assert difference(network, path, others) < 1e-4
