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

from _comparison import table
from _detection import CocoFolder, DataError, detector_recipe
from _digit_scenes import write_digit_scenes
from _launch import at_least
from _scene_picture import detect, draw_detections
from _steps import SearchError, quickstart, run_parser, say, train_aloud

from dms_razor.subnet import SubnetError
from dms_razor.subnet.files import write_text


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


if __name__ == '__main__':
    main()
