# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows of detectors: the paper's YOLOv8-n with what is known of it."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import json
import logging
import runpy
import sys

import pytest
import torch
from equality import assert_true, difference, unit_table
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace
from tools.zoo.check import Row, check_network
from tools.zoo.detectors import (DETECTORS, NEEDS_FULL_MMCV, build_detector,
                                 markdown)


def detector(name):
    cfg = get_config(DETECTORS[name])
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    return MODELS.build(cfg.model)


def test_yolov8_n():
    """59 width units / 4,960 elements, 4 depth units / 6 blocks; subnets
    compute what the masked network does, removed C2f blocks included."""
    model = detector('YOLOv8-n')
    space = assert_true(model, torch.randn(1, 3, 64, 64), number=2)
    assert space.count('width') == (59, 4960)
    assert space.count('depth') == (4, 6)
    assert {stay.module
            for stay in space.full_width} == {
                f'bbox_head.head_module.{kind}_preds.{level}.2'
                for kind in ('cls', 'reg')
                for level in range(3)
            }
    subnet = slice_model(
        model, space, space.random_selection(torch.Generator().manual_seed(0)))
    for module in subnet.modules():
        if isinstance(module, nn.Conv2d):
            assert tuple(module.weight.shape[:2]) == (module.out_channels,
                                                      module.in_channels //
                                                      module.groups)
    parts = {unit.name.split('.')[0] for unit in space.units}
    assert parts == {'backbone', 'neck', 'bbox_head'}
    assert sum(kind == 'depth' for kind, _, _ in unit_table(space).values()) \
        == 4


def test_removed_c2f_blocks():
    """All width stays, all removable blocks go."""
    model = detector('YOLOv8-n').eval()
    images = torch.randn(1, 3, 64, 64)
    space = trace(model, images, width=False)
    assert space.count() == (4, 6)
    keep = torch.zeros(6, dtype=torch.bool)
    subnet = slice_model(model, space, keep)
    stage = subnet.backbone.stage2[1]
    last = stage.final_conv.conv
    assert last.in_channels == last.weight.shape[1] == 2 * stage.mid_channels
    assert difference(model, space, keep, images) < 1e-5


@pytest.mark.parametrize(
    'name, units, elements',
    [
        ('YOLOv8-n', dict(width=59, depth=4), 4966),
        # by hand, from the widths of its layers: 26 and 24 units in backbone
        # and neck with 2,240 and 2,112 channels; 7 blocks
        ('YOLOv5-n', dict(width=50, depth=4), 4359),
        ('YOLOX-nano', dict(width=67, depth=3), 5479),
        ('PPYOLOE-s', dict(width=58, depth=4), 8158),
        ('FCOS-R18', dict(width=22, depth=4), 5445),
    ])
def test_rows(name, units, elements):
    """Masked supernet against what was exported, removed blocks included."""
    row = check_network(name, *build_detector(name))
    assert row.equal, row.problem
    assert row.difference < 1e-5
    assert (row.units, row.elements) == (units, elements)
    assert row.share > .999
    assert not any('not understood' in reason for reason in row.fixed)


def test_yolov8_n_is_the_same_function():
    """Cut in float64 nothing but its rounding is left, through the softmax
    of the distances too, whatever weights and channels."""
    model, images = build_detector('YOLOv8-n')
    model, images = model.eval().double(), images.double()[..., :64, :64]
    space = trace(model, images)
    depth = [
        space.layout.slice_of(number)
        for number, unit in enumerate(space.units) if unit.kind == 'depth'
    ]
    for seed, blocks in enumerate((None, 0., 1.)):
        keep = space.random_selection(torch.Generator().manual_seed(seed))
        if blocks is not None:
            for where in depth:
                keep[where] = bool(blocks)
        assert difference(model, space, keep, images) < 1e-12


def test_the_page():
    rows = [
        Row('A',
            units=dict(width=3, depth=1),
            elements=40,
            params=2_000_000,
            share=.5,
            difference=2e-7,
            fixed={
                'output of the network':
                ['detector.head.a.0', 'detector.head.a.1'],
                'Head "detector.head.0" mixes': ['detector.head.0.x'],
                'Head "detector.head.1" mixes': ['detector.head.1.x'],
            }),
        Row('B', problem='no forward'),
        Row('C', difference=3e-12, precision='float64'),
    ]
    page = markdown(rows)
    assert '2 of these 3 detectors' in page
    assert '| A | 3 width, 1 depth | 40 | 2.00 M | 50.0% | 2.0e-07 |' in page
    assert '| 3.0e-12 (float64) |' in page
    # each reason once, as on the page of backbones, outputs included
    assert ('- **A**\n'
            '  - output of the network (`head.a.*`; 2 modules)\n'
            '  - Head "head.*" mixes (`head.*.x`; 2 modules)\n'
            '- **B**\n  - no forward\n') in page
    for name in NEEDS_FULL_MMCV:
        assert name in page


def test_rows_of_several_files_make_the_page(repo, tmp_path, monkeypatch):
    """They were looked for among the backbones, and the page was empty."""
    for name in ('FCOS-R18', 'YOLOv5-n'):
        row = Row(name, difference=1e-7)
        (tmp_path / f'{name}.json').write_text(json.dumps([vars(row)]))
    tool = runpy.run_path(str(repo / 'tools/zoo'))
    page = tmp_path / 'page.md'
    monkeypatch.setattr(sys, 'argv', [
        'coverage', '--detectors', '--markdown',
        str(page), '--merge', *map(str, tmp_path.glob('*.json'))
    ])
    tool['main']()
    logging.disable(logging.NOTSET)
    text = page.read_text()
    assert '2 of these 2' in text
    assert 0 < text.index('| YOLOv5-n |') < text.index('| FCOS-R18 |')


def test_unknown_detector():
    with pytest.raises(ValueError, match='YOLOv8-n'):
        build_detector('YOLOv99')
