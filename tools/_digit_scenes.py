# Copyright (c) dms_razor contributors. All rights reserved.
"""Handwritten digits on canvases: a detection task without a download.

Scikit-learn's scans of single digits (see :mod:`dms_razor.openmmlab.digits`)
are enlarged and placed on grey canvases of uneven brightness, with a box each
in COCO's format. Any detector of mmdet or mmyolo reads the result with a
``CocoDataset``. Training scenes hold training scans only, test scenes test
scans only; a seed decides the rest.
"""
import json
from pathlib import Path
from typing import Dict, List, Sequence, Tuple, Union

import cv2
import numpy as np

from dms_razor.openmmlab.digits import _load, _test_mask
from dms_razor.subnet.files import whole_folder

CLASSES = tuple('0123456789')
_WRITTEN = ('recipe.json', 'annotations', 'train', 'test')


def write_digit_scenes(root: Union[str, Path],
                       images: Dict[str, int],
                       size: int = 128,
                       digits: Tuple[int, int] = (3, 8),
                       sides: Tuple[int, int] = (14, 40),
                       seed: int = 0) -> Path:
    """Write scenes with annotations in COCO's format.

    The folder appears whole: ``train/00000.png`` … with
    ``annotations/train.json``, and the same for the other splits.

    Args:
        root (str | Path): The folder. One that holds these very scenes is
            left as it is.
        images (dict): Number of scenes in the splits ``'train'`` and
            ``'test'``.
        size (int): Side of the square scenes in pixels.
        digits (tuple[int, int]): Fewest and most digits in a scene.
        sides (tuple[int, int]): Smallest and largest side of a digit's scan
            in pixels.
        seed (int): Decides everything that is random.

    Returns:
        Path: ``root``.

    Raises:
        ValueError: If a split, a number or a size makes no sense.
        ImportError: If scikit-learn is not installed.
    """
    root = Path(root)
    _check(images, size, digits, sides)
    recipe = dict(
        images=images,
        size=size,
        digits=list(digits),
        sides=list(sides),
        seed=seed)
    told = root / 'recipe.json'
    if told.is_file() and json.loads(told.read_text()) == recipe:
        return root
    scans, labels = _load()
    test = _test_mask(labels, test_every=3)
    with whole_folder(root, _WRITTEN) as folder:
        (folder / 'annotations').mkdir()
        for number, (split, count) in enumerate(sorted(images.items())):
            (folder / split).mkdir()
            rng = np.random.default_rng([seed, number])
            chosen = np.flatnonzero(test if split == 'test' else ~test)
            scenes = []
            for index in range(count):
                scene, found = draw_scene(rng, scans, chosen, size, digits,
                                          sides)
                cv2.imwrite(str(folder / split / f'{index:05d}.png'), scene)
                scenes.append(found)
            (folder / 'annotations' / f'{split}.json').write_text(
                json.dumps(_coco(size, scenes, labels)))
        (folder / 'recipe.json').write_text(json.dumps(recipe, indent=2))
    return root


def draw_scene(
    rng: np.random.Generator, scans: np.ndarray, chosen: Sequence[int],
    size: int, digits: Tuple[int, int], sides: Tuple[int, int]
) -> Tuple[np.ndarray, List[Tuple[int, Tuple[int, int, int, int]]]]:
    """Place digits on a canvas; none of them overlap.

    Args:
        rng (np.random.Generator): Source of the choice.
        scans (np.ndarray): All scans, uint8 (N, 8, 8), 255 is ink.
        chosen (Sequence[int]): Scans to choose from.
        size (int): Side of the scene.
        digits (tuple[int, int]): Fewest and most digits; what finds no place
            is left out, so that a crowded scene may hold fewer.
        sides (tuple[int, int]): Smallest and largest side of a scan.

    Returns:
        tuple: The scene, uint8 (size, size, 3), and for each digit its scan
        and the box (x, y, width, height) around its ink.
    """
    paper = cv2.resize(
        rng.uniform(20, 150, (4, 4)).astype(np.float32), (size, size),
        interpolation=cv2.INTER_CUBIC)
    paper = np.repeat(paper[..., None], 3, -1)
    paper += rng.normal(0, 8, paper.shape)
    found, taken = [], np.zeros((size, size), dtype=bool)
    for _ in range(int(rng.integers(digits[0], digits[1] + 1))):
        scan = int(rng.choice(chosen))
        for _ in range(20):
            side = int(rng.integers(sides[0], sides[1] + 1))
            x, y = rng.integers(0, size - side + 1, 2).tolist()
            place = slice(y, y + side), slice(x, x + side)
            if not taken[place].any():
                break
        else:
            continue
        taken[place] = True
        ink = cv2.resize(scans[scan], (side, side)).astype(np.float32) / 255
        colour = rng.uniform(170, 255, 3)
        paper[place] += ink[..., None] * (colour - paper[place])
        left, top, *sides_of_ink = cv2.boundingRect((ink
                                                     > .3).astype(np.uint8))
        found.append((scan, (x + left, y + top, *sides_of_ink)))
    return np.clip(paper, 0, 255).round().astype(np.uint8), found


def _check(images: Dict[str, int], size: int, digits: Tuple[int, int],
           sides: Tuple[int, int]) -> None:
    """Refuse what cannot be drawn."""
    unknown = set(images) - {'train', 'test'}
    if not images or unknown or min(images.values()) < 1:
        raise ValueError(
            f'digit scenes of {images} cannot be written: give the number of '
            "scenes, at least 1, of the splits 'train' and 'test'")
    if not 1 <= digits[0] <= digits[1]:
        raise ValueError(f'a scene cannot hold {digits} digits: give the '
                         'fewest, at least 1, and the most')
    if not 8 <= sides[0] <= sides[1] <= size:
        raise ValueError(
            f'digits with sides of {sides} pixels do not fit scenes of '
            f'{size}: give the smallest, at least 8, and the largest, at '
            'most the side of the scene')


def _coco(size: int, scenes: Sequence[list], labels: np.ndarray) -> dict:
    """Annotations in COCO's format of scenes: (scan, box) for each digit."""
    boxes = [(index, int(labels[scan]), box)
             for index, found in enumerate(scenes) for scan, box in found]
    return dict(
        images=[
            dict(
                id=index,
                file_name=f'{index:05d}.png',
                width=size,
                height=size) for index in range(len(scenes))
        ],
        annotations=[
            dict(
                id=number,
                image_id=index,
                category_id=label,
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=0) for number, (index, label, box) in enumerate(boxes)
        ],
        categories=[
            dict(id=number, name=name) for number, name in enumerate(CLASSES)
        ])
