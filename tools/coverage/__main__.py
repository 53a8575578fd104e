# Copyright (c) dms_razor contributors. All rights reserved.
"""Take every backbone of mmpretrain through tracing, export and training.

    python tools/coverage                      # all of them, a table
    python tools/coverage ResNet ConvNeXt      # some of them
    python tools/coverage --json rows.json --markdown docs/en/coverage.md
    python tools/coverage --detectors          # mmyolo's and mmdet's
    python tools/coverage --merge a.json b.json --markdown page.md

Ends with an error if a row is wrong: supernet and subnet differ, or something
on the way fails, and the table of known cases does not say so.
"""
import argparse
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import List

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

# Run as a folder it is no package; from here on it is.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from tools.coverage.backbones import (  # noqa: E402  isort: skip
    build_case, registered_backbones)
from tools.coverage.check import Row, check_network  # noqa: E402  isort: skip
from tools.coverage.detectors import (  # noqa: E402  isort: skip
    DETECTORS, build_detector, markdown as detectors_markdown)
from tools.coverage.table import line, markdown  # noqa: E402  isort: skip


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
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    known = list(DETECTORS) if args.detectors else registered_backbones()
    if args.merge:
        found = {
            item['name']: Row(**item)
            for file in args.merge
            for item in json.loads(Path(file).read_text())
        }
        rows = [found[name] for name in known if name in found]
    else:
        rows = make_rows(args, args.names or known)
    if args.markdown:
        page = detectors_markdown if args.detectors else markdown
        Path(args.markdown).write_text(page(rows))
    wrong = [row.name for row in rows if not row.equal]
    if wrong:
        sys.exit(f'not equal: {", ".join(wrong)}')


def make_rows(args: argparse.Namespace, names: List[str]) -> List[Row]:
    """Try networks; prints and writes each row when it is there."""
    rows: List[Row] = []
    for name in names:
        try:
            network = (build_detector if args.detectors else build_case)(name)
            rows.append(check_network(name, *network, seed=args.seed))
        except Exception as error:
            reason = f'not built: {type(error).__name__}: {error}'
            rows.append(Row(name, problem=reason))
        print(line(rows[-1]), flush=True)
        if args.json:
            Path(args.json).write_text(
                json.dumps([vars(row) for row in rows], indent=1))
    return rows


if __name__ == '__main__':
    main()
