# Copyright (c) dms_razor contributors. All rights reserved.
"""The coverage of OpenMMLab: mmpretrain's backbones, whole detectors."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import argparse
import json
from pathlib import Path
from typing import List

from .backbones import build_case, registered_backbones
from .check import Row, check_network
from .detectors import DETECTORS, build_detector
from .detectors import markdown as detectors_markdown
from .table import line, markdown


def run(args: argparse.Namespace) -> List[str]:
    """Rows as they come, then the files; names of those that are wrong."""
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
    return [row.name for row in rows if not row.equal]


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
