# Copyright (c) dms_razor contributors. All rights reserved.
"""What networks find on images, and a picture of it, one row a network."""
from pathlib import Path
from typing import Dict, List

import cv2
import matplotlib.pyplot as plt
import torch
from _detection import CocoFolder
from matplotlib.patches import Rectangle
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from dms_razor.openmmlab.hooks.export import averaged_weights
from dms_razor.subnet.files import whole_file

Rows = List[List[float]]  # x1, y1, x2, y2, score, class


def detect(runner: Runner,
           number: int = 4,
           score_thr: float = .3) -> List[Rows]:
    """What a trained network finds on its first images of the validation."""
    found, dataset = [], runner.val_dataloader.dataset
    with averaged_weights(runner), torch.no_grad():
        runner.model.eval()
        for index in range(min(number, len(dataset))):
            sample, = runner.model.test_step(pseudo_collate([dataset[index]]))
            boxes = sample.pred_instances
            boxes = boxes[boxes.scores > score_thr]
            found.append(
                torch.cat([
                    boxes.bboxes, boxes.scores[:, None], boxes.labels[:, None]
                ], 1).tolist())
    return found


def draw_detections(data: CocoFolder, split: str,
                    detections: Dict[str, List[Rows]], path: Path) -> None:
    """Draw the first images of a split, the truth above.

    Args:
        data (CocoFolder): The images.
        split (str): The split.
        detections (dict): Name of a network to what it found, by image.
        path (Path): The picture; it appears whole.
    """
    number = len(next(iter(detections.values())))
    content = data.content[split]
    images = sorted(content['images'], key=lambda image: image['id'])[:number]
    order = {one['id']: i for i, one in enumerate(content['categories'])}
    rows = {
        'truth': [[(x, y, x + w, y + h, 1., order[note['category_id']])
                   for note in content['annotations']
                   if note['image_id'] == image['id']
                   for x, y, w, h in [note['bbox']]] for image in images],
        **detections
    }
    figure, axes = plt.subplots(
        len(rows),
        number,
        squeeze=False,
        figsize=(2.2 * number, 2.2 * len(rows)))
    for row, (name, found) in zip(axes, rows.items()):
        row[0].set_ylabel(name)
        for axis, image, boxes in zip(row, images, found):
            pixels = cv2.imread(
                str(data.root / data.images(split) / image['file_name']))
            axis.imshow(pixels[..., ::-1])
            axis.set(xticks=[], yticks=[])
            for box in boxes:
                _draw(axis, box, data.classes)
    figure.tight_layout()
    with whole_file(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw(axis, box: List[float], classes) -> None:
    x1, y1, x2, y2, score, label = box
    colour = plt.cm.tab10(int(label) % 10)
    axis.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour))
    axis.text(
        x1,
        y1 - 1,
        classes[int(label)] + (f' {score:.1f}' if score < 1 else ''),
        color='white',
        fontsize=6,
        bbox=dict(pad=.5, facecolor=colour, linewidth=0))
