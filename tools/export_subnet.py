# Copyright (c) dms_razor contributors. All rights reserved.
"""Export the subnet of a search from any of its checkpoints."""
import sys
from pathlib import Path

from _launch import config_parser, read_config

from dms_razor.openmmlab.from_config import algorithm_of_config, load_search
from dms_razor.openmmlab.retrain import retrain_config


def main() -> None:
    parser = config_parser(__doc__, 'config of the search')
    parser.add_argument('checkpoint', help='checkpoint of the search')
    parser.add_argument(
        '--out-dir',
        help='folder to write; by default `subnet` beside the checkpoint')
    parser.add_argument(
        '--target', help="another budget than the search's: 0.6, 60%%, 2.0G")
    parser.add_argument(
        '--retrain-base',
        help='config whose training recipe the retrain config takes; by '
        'default the standard config that the search inherits')
    parser.add_argument(
        '--finetune',
        action='store_true',
        help='let the retrain config start from the searched weights')
    parser.add_argument(
        '--no-picture', action='store_true', help='do not draw the structure')
    parser.add_argument(
        '--no-measure',
        action='store_true',
        help='do not measure a latency that was limited')
    parser.add_argument(
        '--divisor',
        type=lambda text: text if text == 'auto' else int(text),
        help="let widths be multiples of it, or 'auto'")
    args = parser.parse_args()
    out_dir = args.out_dir or Path(args.checkpoint).parent / 'subnet'
    try:
        cfg = read_config(args)
        model = load_search(algorithm_of_config(cfg), args.checkpoint)
        export = model.search.export(
            out_dir,
            args.target,
            retrain=retrain_config(
                cfg, args.retrain_base, from_search=args.finetune),
            picture=not args.no_picture,
            measure=not args.no_measure,
            divisor=args.divisor)
    except (ValueError, TypeError, KeyError, RuntimeError, SyntaxError,
            OSError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
    print((export.path / 'report.md').read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
