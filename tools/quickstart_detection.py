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
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TextIO

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

from _comparison import Network, table
from _detection import CocoFolder, DataError
from _detection_steps import CONFIGS, Recipe, SearchError, search, train
from _digit_scenes import write_digit_scenes
from _scene_picture import draw_detections
from _steps import say
from mmengine.hooks import Hook

from dms_razor.search import Search
from dms_razor.subnet import SubnetError
from dms_razor.subnet.files import write_text

YOLO = CONFIGS / 'yolov8'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir',
        default='work_dirs/quickstart_detection',
        help='folder for everything that is written (default: %(default)s)')
    parser.add_argument(
        '--target',
        default='50%',
        help='MACs to search for (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--epochs',
        type=int,
        default=30,
        help='of the search and of each training (default: %(default)s)')
    parser.add_argument(
        '--images',
        type=int,
        nargs=2,
        default=(256, 96),
        metavar=('TRAIN', 'TEST'),
        help='scenes to make (default: %(default)s)')
    args = parser.parse_args()
    if args.epochs < 5:
        parser.error('--epochs: give at least 5')
    if args.seed < 0:
        parser.error('--seed: give a number from 0 on')
    if min(args.images) < 1:
        parser.error('--images: give numbers of scenes')
    return args


class Progress(Hook):
    """The search's pre-flight, then a line every few epochs."""

    priority = 'LOW'  # after the search's own hooks

    def __init__(self, search: Search, out: TextIO) -> None:
        self.search, self.out = search, out

    def before_train(self, runner) -> None:
        with redirect_stdout(self.out):
            say(self.search.preflight().text(), 5)

    def after_train_epoch(self, runner) -> None:
        epoch, last = runner.epoch + 1, runner.max_epochs
        if epoch % max(1, last // 5) and epoch != last:
            return
        whole = self.search.resource.supernet('macs')
        loss = runner.message_hub.get_scalar('train/loss').mean(10)
        with redirect_stdout(self.out):
            say(
                f'epoch {epoch:2}/{last}   MACs asked '
                f'{self.search.current_target / whole:6.1%}   now '
                f'{self.search.current() / whole:6.1%}   loss {loss:.2f}', 5)


def main() -> None:
    args = parse_args()
    try:
        run(args)
    except (DataError, SearchError, SubnetError) as error:
        sys.exit(f'{type(error).__name__}: {error}')


def run(args: argparse.Namespace) -> None:
    """All steps."""
    start = time.time()
    work_dir = Path(args.work_dir)
    scenes = write_digit_scenes(
        work_dir / 'scenes',
        dict(train=args.images[0], test=args.images[1]),
        size=128,
        seed=args.seed)
    data = CocoFolder(scenes)
    recipe = Recipe(
        work_dir,
        data,
        supernet=YOLO / 'yolov8-d0.33-w0.125_b8-60e_coco-format.py',
        search=YOLO / 'dms-yolov8-50p_b8-60e_coco-format.py',
        retrain=YOLO / 'dms-yolov8-50p_b8-60e_coco-format_retrain.py',
        target=args.target,
        size=128,
        epochs=args.epochs,
        val='test',
        flip=False)

    say(f'1/4  Search: a small YOLOv8 on scenes of digits, down to '
        f'{args.target} of its MACs')
    whole = search(recipe, args.seed, partial(Progress, out=sys.stdout))
    subnet = work_dir / 'search' / 'subnet'
    say(f'2/4  Export: {subnet}')
    for file in sorted(subnet.iterdir()):
        say(file.name, 5)
    networks = [
        Network('supernet', recipe.supernet, round(whole['macs']),
                round(whole['params'])),
        Network.of('searched', recipe.retrain, subnet),
        Network.of('narrowed uniformly', recipe.retrain, work_dir / 'uniform')
    ]

    say('3/4  Train: three networks from scratch with the same recipe')
    detections, half = {}, []
    for network in networks:
        name = network.name.replace(' ', '_')
        found = train(recipe, name, network.subnet, args.seed, look_at=4)
        network.top1.append(found['test']['mAP'])
        half.append(f'{found["test"]["mAP_50"]:.2f}')
        detections[network.name] = found['detections']
        say(
            f'{network.name:18} mAP {network.top1[-1]:5.2f} %   '
            f'{found["seconds"]:3.0f} s', 5)

    text = table(networks, 'mAP (%)', {'mAP at IoU 0.5 (%)': half})
    write_text(work_dir / 'table.md', text + '\n')
    picture = work_dir / 'detections.png'
    draw_detections(data, 'test', detections, picture)
    say(f'4/4  Result: {args.images[1]} test scenes, seed {args.seed}')
    say(text)
    say()
    say(f'Boxes     {picture}\n'
        f'Structure {subnet / "structure.png"}\n'
        f'Report    {subnet / "report.md"}\n'
        f'Table     {work_dir / "table.md"}\n'
        f'Took      {time.time() - start:.0f} s')
    say()
    say('Next: write the searched network as an ONNX file with boxes in it, '
        'or search on a\ndata set of yours in COCO\'s format:\n\n'
        f'    python tools/export.py {subnet} --boxes --checkpoint '
        f'{work_dir / "searched"}/epoch_{args.epochs}.pth\n'
        '    python tools/benchmark_detection.py PATH')


if __name__ == '__main__':
    main()
