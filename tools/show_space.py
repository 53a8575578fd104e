# Copyright (c) dms_razor contributors. All rights reserved.
"""Show what a config's search can prune, before it runs.

Prints the number of ratios and elements, what the supernet and the smallest
network cost, whether the target can be reached and in about how many steps,
and what stays at full width and why. Nothing is trained or downloaded. A
config of a plain model is shown with the default settings of a search.

The exit status is 1 if the search could not start.
"""
import sys
from contextlib import redirect_stdout

from _first_look import alive
from _launch import config_parser, read_config, tell

from dms_razor.openmmlab.from_config import preflight_of_config


def main() -> int:
    args = config_parser(
        __doc__, 'config of a search or of a model',
        as_json=True).parse_args()
    try:
        # stdout may be for the JSON alone
        with redirect_stdout(sys.stderr), alive('reading the network'):
            report = preflight_of_config(read_config(args))
    except (ValueError, TypeError, KeyError, RuntimeError, SyntaxError,
            OSError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f'{args.config}: {reason}')
    tell(args, report.to_dict(), report.text())
    return 0 if report.problem is None else 1


if __name__ == '__main__':
    sys.exit(main())
