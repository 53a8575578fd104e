# Copyright (c) dms_razor contributors. All rights reserved.
"""Scenes of digits: boxes around the ink, splits apart, decided by a seed."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import json

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from pycocotools.coco import COCO

from tools._digit_scenes import CLASSES, draw_scene, write_digit_scenes

SPLITS = dict(train=6, test=4)


def content(root):
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob('*') if path.is_file()
    }


def test_a_seed_decides_everything(tmp_path):
    first = content(write_digit_scenes(tmp_path / 'a', SPLITS))
    assert first == content(write_digit_scenes(tmp_path / 'b', SPLITS))
    other = content(write_digit_scenes(tmp_path / 'c', SPLITS, seed=1))
    assert set(other) == set(first) and other != first


def test_a_folder_with_these_scenes_is_left_alone(tmp_path):
    root = write_digit_scenes(tmp_path / 'a', SPLITS)
    (root / 'mine.txt').write_text('stays')
    write_digit_scenes(root, SPLITS)
    assert (root / 'mine.txt').exists()


def test_boxes_in_coco_format(tmp_path):
    root = write_digit_scenes(tmp_path / 'a', SPLITS, size=96)
    for split, number in SPLITS.items():
        coco = COCO(str(root / f'annotations/{split}.json'))
        assert len(coco.imgs) == number
        assert [c['name']
                for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        for image in coco.imgs.values():
            pixels = cv2.imread(str(root / split / image['file_name']))
            assert pixels.shape == (96, 96, 3)
            boxes = coco.loadAnns(coco.getAnnIds(image['id']))
            assert 1 <= len(boxes) <= 8
            covered = np.zeros((96, 96), int)
            for box in boxes:
                x, y, w, h = box['bbox']
                assert 0 <= x < x + w <= 96 and 0 <= y < y + h <= 96
                assert box['area'] == w * h
                covered[y:y + h, x:x + w] += 1
            assert covered.max() == 1


def test_a_box_is_where_the_ink_is():
    """One white square as the only scan: found by looking at the pixels."""
    scan = np.zeros((1, 8, 8), np.uint8)
    scan[0, 2:6, 1:4] = 255
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scene, [(number, box)] = draw_scene(rng, scan, [0], 64, (1, 1),
                                            (32, 32))
        assert number == 0
        # ink is 170 at least, paper with its noise almost never above 160
        rows, columns = np.nonzero((scene > 165).all(-1))
        x, y, w, h = box
        inside = (rows >= y) & (rows < y + h) & (columns >= x) & (
            columns < x + w)
        assert inside.mean() > .98
        assert abs(w - 12) <= 2 and abs(h - 16) <= 2


def test_mmdet_reads_it(tmp_path):
    root = write_digit_scenes(tmp_path / 'a', SPLITS)
    dataset = CocoDataset(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES))
    labels = [
        box['bbox_label'] for item in dataset for box in item['instances']
    ]
    truth = json.loads((root / 'annotations/train.json').read_text())
    assert labels == [a['category_id'] for a in truth['annotations']]


@pytest.mark.parametrize('arguments, told', [
    (dict(images=dict(valid=3)), 'splits'),
    (dict(images=dict(train=0)), 'at least 1'),
    (dict(images=SPLITS, digits=(3, 2)), 'fewest'),
    (dict(images=SPLITS, sides=(4, 20)), 'at least 8'),
    (dict(images=SPLITS, sides=(20, 80), size=64), 'do not fit'),
])
def test_what_cannot_be_drawn(arguments, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        write_digit_scenes(tmp_path / 'a', **arguments)
    assert not (tmp_path / 'a').exists()
