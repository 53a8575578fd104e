# Copyright (c) dms_razor contributors. All rights reserved.
"""Test a checkpoint with a config's test dataset and metrics."""

from _launch import build_runner, load_config, make_parser


def main() -> None:
    parser = make_parser('Test (and evaluate) a model')
    parser.add_argument('checkpoint', help='checkpoint file')
    args = parser.parse_args()
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    build_runner(cfg).test()


if __name__ == '__main__':
    main()
