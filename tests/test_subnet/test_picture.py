# Copyright (c) dms_razor contributors. All rights reserved.
import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dms_razor.subnet.picture import (FILLED, GONE, draw_structure, short,
                                      spans, stages_of)


def layer(name, before, after, removed=None):
    return dict(name=name, outputs=[before, after], removed=removed)


def report(*layers):
    return dict(
        layers=list(layers),
        units=[
            dict(name='net.layer1', kind='depth', total=2, kept=1),
            dict(name='net.conv', kind='width', total=9, kept=5)
        ],
        macs=dict(supernet=4089184256, counted=972922880),
        params=dict(supernet=25557032, counted=4049240))


def drawn(path, *layers):
    draw_structure(report(*layers), path)
    return cv2.imread(str(path))[..., ::-1]


def share(image, colour):
    """Share of the pixels that are about of this colour."""
    near = np.abs(image / 255. - np.array(to_rgb(colour))).max(-1) < .02
    return near.mean()


def test_filled_part_follows_the_kept_width(tmp_path):
    areas = [
        share(
            drawn(tmp_path / 'a.png', layer('net.conv', 100, kept),
                  layer('head.fc', 100, 100)), FILLED) for kept in (0, 50, 100)
    ]
    one = areas[2] - areas[0]
    assert one > .05
    assert abs((areas[1] - areas[0]) / one - .5) < .02


def test_removed_blocks_are_hatched(tmp_path):
    layers = [layer('net.layer1.0', 10, 5), layer('net.layer1.1', 10, 0)]

    def reddish(image):
        red, green, blue = image.astype(int).transpose(2, 0, 1)
        return ((red - blue > 10) & (red - green > 10)).mean()

    assert reddish(drawn(tmp_path / 'a.png', *layers)) < 1e-4
    layers[1]['removed'] = 'net.layer1.1'
    assert reddish(drawn(tmp_path / 'b.png', *layers)) > .1
    assert to_rgb(GONE)[0] > .7


def test_large_networks_and_other_formats(tmp_path):
    layers = [layer(f'net.layers.{i}.conv', 64, 32) for i in range(700)]
    image = drawn(tmp_path / 'a.png', *layers)
    assert image.shape[1] < 2000 < image.shape[0]
    draw_structure(report(*layers[:3]), tmp_path / 'a.svg')
    text = (tmp_path / 'a.svg').read_text()
    assert text.lstrip().startswith('<?xml')


def test_pyplot_is_left_alone(tmp_path):
    before = plt.get_fignums()
    drawn(tmp_path / 'a.png', layer('conv', 3, 2))
    assert plt.get_fignums() == before


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match='lists no layers.*Pass the report'):
        draw_structure(report(), tmp_path / 'a.png')
    assert not list(tmp_path.iterdir())


def test_stages():
    resnet = ['conv1', 'layer1.0.conv1', 'layer1.0.downsample.0', 'fc']
    assert stages_of(resnet, []) == ['conv1', 'layer1', 'layer1', 'fc']
    efficientnet = ['layers.0.conv', 'layers.4.1.dw.conv', 'layers.4.2.se']
    assert stages_of(efficientnet, []) == ['layers.0', 'layers.4', 'layers.4']
    swin = ['stages.0.blocks.1.attn', 'stages.0.downsample.reduction']
    assert stages_of(swin,
                     ['stages.0.blocks']) == ['stages.0.blocks', 'stages']
    assert stages_of(['features.12'], []) == ['features']


def test_labels():
    assert short('backbone.layer1') == 'layer1'
    assert short('bbox_head.head_module.cls_preds.0') == 'cls_preds.0'
    assert short('a_very_long_name_without_dots') == (
        'a_very_long_name_without_dots')


def test_spans():
    assert spans(list('aabccc')) == [(0, 1, 'a'), (2, 2, 'b'), (3, 5, 'c')]
    assert spans([]) == []
