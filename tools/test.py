# Copyright (c) dms_razor contributors. All rights reserved.
"""Test a checkpoint with a config's test dataset and metrics."""
import argparse

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

from _launch import build_runner, load_config, make_parser


def parse_args() -> argparse.Namespace:
    parser = make_parser('Test (and evaluate) a model')
    parser.add_argument('checkpoint', help='checkpoint file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    build_runner(cfg).test()


if __name__ == '__main__':
    main()
