# Copyright (c) dms_razor contributors. All rights reserved.
"""The coverage of other packages: rows as they come, then the tables."""
import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List

from .families import cases, check_family, row_file
from .families_table import line, page, versions
from .record import Record


def run(args: argparse.Namespace) -> List[str]:
    """Make the rows that are not there, and write all of them down.

    With ``args.merge`` none is made: rows of those folders that are there.

    Returns:
        list[str]: Networks that are silently wrong, or fail with an error
        that is not ours.
    """
    rows: List[Record] = []
    known: Dict[str, List[str]] = {}
    made_with = versions(
        'torch',
        *(name for family in args.of for name in cases(family).PACKAGES))
    for family in args.of:
        known[family] = cases(family).names()
        names = [n for n in args.names or known[family] if n in known[family]]
        if args.merge:
            files = [
                row_file(Path(folder), family, name) for name in names
                for folder in args.merge
            ]
            rows += [Record.load(file) for file in files if file.exists()]
        else:
            rows += check_family(family, names, Path(args.rows), args.limit,
                                 lambda row: print(line(row), flush=True))
    if args.json:
        Path(args.json).write_text(_one_a_line(rows, made_with))
    if args.markdown:
        Path(args.markdown).write_text(page(rows, made_with, known))
    return [
        f'{row.family} {row.name}' for row in rows
        if row.status in ('wrong', 'foreign', 'not built')
    ]


def _one_a_line(rows: List[Record], made_with: Dict[str, str]) -> str:
    """All rows as JSON, each on a line of its own."""
    lines = ',\n'.join(json.dumps(asdict(row)) for row in rows)
    return f'{json.dumps(made_with)[:-1]}, "rows": [\n{lines}\n]}}\n'
