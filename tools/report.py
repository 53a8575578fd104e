# Copyright (c) dms_razor contributors. All rights reserved.
"""Write report.html of an export, with what has been found out since.

    dms-razor report work_dirs/NAME/subnet --score "top-1 (%)=76.1"

The page is one file that needs nothing else: what the subnet costs and keeps,
who decided that, its files, and how to go on.
"""
import argparse
import re
import sys
from typing import Tuple

from dms_razor.errors import SubnetError
from dms_razor.subnet.page import write_page


def score(text: str) -> Tuple[str, str]:
    """``NAME=VALUE``, of which the name may hold a ``=``."""
    name, _, value = text.rpartition('=')
    if not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError(
            f'{text!r} is no score: write NAME=VALUE, such as "top-1=76.1"')
    if not re.match(r'[-+]?\.?\d', value.strip()):
        raise argparse.ArgumentTypeError(
            f'{text!r}: {value.strip()!r} is no number; write one, such as '
            '"top-1=76.1", "top-1=76.1 ± 0.2" or "top-1=76.1 %"')
    return name.strip(), value.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='what a search has exported')
    parser.add_argument(
        '--score',
        type=score,
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='accuracy or the like to show on the page; may be repeated')
    args = parser.parse_args()
    try:
        print(write_page(args.folder, dict(args.score)))
    except (SubnetError, OSError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
