# Copyright (c) dms_razor contributors. All rights reserved.
"""Show what a config's search can prune, before it runs.

Prints the number of ratios and elements, what the supernet and the smallest
network cost, whether the target can be reached and in about how many steps,
and what stays at full width and why. Nothing is trained or downloaded. A
config of a plain model is shown with the default settings of a search.

The exit status is 1 if the search could not start.
"""
import argparse
import sys
from contextlib import redirect_stdout

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

from mmengine.config import Config, DictAction

from dms_razor.openmmlab.from_config import preflight_of_config
from dms_razor.subnet.files import write_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='\n'.join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a search or of a model')
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='write the report as JSON to this file; - prints nothing else')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        with redirect_stdout(sys.stderr):  # stdout may be for the JSON alone
            report = preflight_of_config(cfg)
    except (ValueError, TypeError, KeyError, RuntimeError, SyntaxError,
            OSError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f'{args.config}: {reason}')
    if args.json != '-':
        print(report.text())
    if args.json == '-':
        print(report.to_json())
    elif args.json is not None:
        try:
            write_text(args.json, report.to_json() + '\n')
        except OSError as error:
            sys.exit(f'{args.json} cannot be written: {error}')
    return 0 if report.problem is None else 1


if __name__ == '__main__':
    sys.exit(main())
