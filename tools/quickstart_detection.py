# Copyright (c) dms_razor contributors. All rights reserved.
"""Search, export, retrain and compare a detector, in minutes.

Nothing is downloaded: the scenes are made of scikit-learn's handwritten
digits. A small YOLOv8 is searched for half its MACs, what was found is
exported and trained from scratch, beside its supernet and the supernet
narrowed uniformly to the same MACs. Ends with mAP and a picture with boxes.
"""
import argparse
import sys
import time
from pathlib import Path
from typing import Dict, List

import cv2
import matplotlib.pyplot as plt
import torch
from _detection import CocoFolder, DataError, detector_recipe
from _digit_scenes import write_digit_scenes
from _launch import at_least
from _steps import SearchError, quickstart, run_parser, say, table, train_aloud
from matplotlib.patches import Rectangle
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from dms_razor.openmmlab.hooks.export import averaged_weights
from dms_razor.subnet import SubnetError
from dms_razor.subnet.files import whole_file, write_text

Rows = List[List[float]]  # x1, y1, x2, y2, score, class


def main() -> None:
    parser = run_parser(
        __doc__,
        'quickstart_detection',
        default=30,
        help='of the search and of each training (default: %(default)s)')
    parser.add_argument(
        '--seed', type=at_least(0, 'give a number from 0 on'), default=0)
    parser.add_argument(
        '--images',
        type=at_least(1, 'give numbers of scenes'),
        nargs=2,
        default=(256, 96),
        metavar=('TRAIN', 'TEST'),
        help='scenes to make (default: %(default)s)')
    args = parser.parse_args()
    try:
        run(args)
    except (DataError, SearchError, SubnetError) as error:
        sys.exit(f'{type(error).__name__}: {error}')


def run(args: argparse.Namespace) -> None:
    """All steps."""
    start, work_dir = time.time(), Path(args.work_dir)
    data = CocoFolder(
        write_digit_scenes(
            work_dir / 'scenes',
            dict(train=args.images[0], test=args.images[1]),
            size=128,
            seed=args.seed))
    recipe = detector_recipe(
        work_dir, data, args.target, 128, args.epochs, 'test', flip=False)
    _, networks = quickstart(recipe, 'a small YOLOv8 on scenes of digits',
                             args.seed)
    say('3/4  Train: three networks from scratch with the same recipe')
    detections, half = {}, []
    for network in networks:
        found = train_aloud(
            recipe,
            network,
            network.name.replace(' ', '_'),
            args.seed,
            'mAP',
            look=detect)
        half.append(f'{found["test"]["mAP_50"]:.2f}')
        detections[network.name] = found['seen']
    text = table(networks, 'mAP (%)', {'mAP at IoU 0.5 (%)': half})
    write_text(work_dir / 'table.md', text + '\n')
    picture, subnet = work_dir / 'detections.png', work_dir / 'search/subnet'
    draw_detections(data, 'test', detections, picture)
    say(f'4/4  Result: {args.images[1]} test scenes, seed {args.seed}\n'
        f'{text}\n\n'
        f'Boxes     {picture}\n'
        f'Structure {subnet / "structure.png"}\n'
        f'Report    {subnet / "report.md"}\n'
        f'Table     {work_dir / "table.md"}\n'
        f'Took      {time.time() - start:.0f} s\n\n'
        'Next: write the searched network as an ONNX file with boxes in it, '
        'or search on a\ndata set of yours in COCO\'s format:\n\n'
        f'    python tools/export.py {subnet} --boxes --checkpoint '
        f'{work_dir / "searched"}/epoch_{args.epochs}.pth\n'
        '    python tools/benchmark_detection.py PATH')


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


if __name__ == '__main__':
    main()
