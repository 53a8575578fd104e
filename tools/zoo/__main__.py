# Copyright (c) dms_razor contributors. All rights reserved.
"""Take networks through tracing, export and training.

    python tools/zoo                      # all of mmpretrain's backbones
    python tools/zoo ResNet ConvNeXt      # some of them
    python tools/zoo --json rows.json --markdown docs/en/coverage.md
    python tools/zoo --detectors          # mmyolo's and mmdet's
    python tools/zoo --merge a.json b.json --markdown page.md
    python tools/zoo --of timm torchvision transformers   # others'

Ends with an error if a row is wrong: supernet and subnet differ, or something
on the way fails, and the table of known cases does not say so.

With --of a row is a file in the folder --rows, and those that are there are
not made again: a run that was broken off goes on.
"""
import argparse
import importlib
import logging
import sys
import warnings
from pathlib import Path

# Run as a folder it is no package; from here on it is.
sys.path[0] = str(Path(__file__).resolve().parents[2])


def main() -> None:
    """Rows as they come, then the files."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help='backbones; default: all')
    parser.add_argument(
        '--detectors',
        action='store_true',
        help='whole detectors of mmyolo and mmdet, not backbones')
    parser.add_argument('--json', help='write the rows to this file')
    parser.add_argument('--markdown', help='write the page to this file')
    parser.add_argument(
        '--merge', nargs='+', help='read rows instead of making them')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--of',
        nargs='+',
        choices=('timm', 'torchvision', 'transformers', 'openmmlab'),
        default=[],
        metavar='PACKAGE',
        help='networks of timm, torchvision, transformers, or of mmseg and '
        'mmpose (openmmlab) instead')
    parser.add_argument(
        '--rows',
        default='work_dirs/coverage',
        help='folder of the rows of --of; default: %(default)s')
    parser.add_argument(
        '--limit',
        type=float,
        default=300,
        help='seconds of the processor for a network of --of; default: '
        '%(default)s')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    # Each half needs packages that the other does not.
    half = 'others' if args.of else 'openmmlab'
    wrong = importlib.import_module(f'tools.zoo.{half}').run(args)
    if wrong:
        sys.exit(f'not equal: {", ".join(wrong)}')


if __name__ == '__main__':
    main()
