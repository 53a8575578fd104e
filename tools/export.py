# Copyright (c) dms_razor contributors. All rights reserved.
"""Write an exported subnet as ONNX, TorchScript or torch.export file.

    python tools/export.py work_dirs/NAME/subnet
    python tools/export.py work_dirs/NAME/subnet --format pt2 \
        --checkpoint work_dirs/NAME_retrain/epoch_100.pth
    python tools/export.py work_dirs/NAME/subnet --boxes      # a detector

The file takes batches of any size of images as the network's data
preprocessor gives them. Classifiers return logits, detectors the raw outputs
of their head or, with --boxes, boxes after non-maximum suppression. It is
compared with the network before this tool says that it is there.
"""
import argparse
import sys
from pathlib import Path

import torch

from dms_razor.deploy import (FORMATS, DeployError, DetectedBoxes, RawOutputs,
                              write_compared)
from dms_razor.openmmlab.submodel import subnet_of_folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('subnet', help='folder that a search has exported')
    parser.add_argument('--format', choices=list(FORMATS), default='onnx')
    parser.add_argument(
        '--checkpoint',
        help='weights, e.g. of the retraining; by default the searched ones')
    parser.add_argument(
        '--config',
        help='config whose model is the subnet; by default its retrain.py')
    parser.add_argument(
        '--out', help='file to write; by default SUBNET/subnet.onnx etc.')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images; by default what the search counted MACs for')
    parser.add_argument(
        '--boxes',
        action='store_true',
        help='of a detector: decoded boxes after non-maximum suppression '
        '(ONNX alone)')
    parser.add_argument('--score-thr', type=float, help='with --boxes')
    parser.add_argument('--iou-thr', type=float, help='with --boxes')
    args = parser.parse_args()
    if args.boxes and args.format != 'onnx':
        parser.error('--boxes: non-maximum suppression is an operator of '
                     'ONNX; leave --boxes out or use --format onnx')
    if not args.boxes and (args.score_thr, args.iou_thr) != (None, None):
        parser.error('--score-thr and --iou-thr have no effect without '
                     '--boxes')
    for name in ('score_thr', 'iou_thr'):
        value = getattr(args, name)
        if value is not None and not 0 <= value <= 1:
            parser.error(f'--{name.replace("_", "-")} {value}: give a number '
                         'from 0 to 1')
    if args.size is not None and min(args.size) < 1:
        parser.error(f'--size {args.size[0]} {args.size[1]}: give numbers of '
                     'pixels')
    return args


def export(args: argparse.Namespace) -> Path:
    """Write the file and compare it with the network."""
    model, images = subnet_of_folder(args.subnet, args.config, args.checkpoint)
    if args.size is not None:
        images = torch.randn(2, images.shape[1], *args.size)
    try:
        network = RawOutputs(model, images) if not args.boxes else \
            DetectedBoxes(model, images, args.score_thr, args.iou_thr)
    except (AssertionError, RuntimeError) as error:
        raise DeployError(
            f'{args.subnet} does not take images of {tuple(images.shape[2:])} '
            f'pixels ({error}); name another --size') from error
    folder = Path(args.subnet)
    folder = folder if folder.is_dir() else folder.parent
    path = Path(args.out or folder / f'subnet{FORMATS[args.format]}')
    path, worst = write_compared(network, images, path, args.format)
    params = sum(p.numel() for p in model.parameters())
    print(f'{path}: {path.stat().st_size / 1e6:.2f} MB for {params:,} '
          f'parameters, outputs {", ".join(network.names)}, largest '
          f'difference {worst:.1e}')
    return path


def main() -> None:
    args = parse_args()
    try:
        export(args)
    except (DeployError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
