# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows as they are written down, and the page of the docs."""
import re
from pathlib import Path

from tools.zoo.backbones import NO_NETWORK, registered_backbones
from tools.zoo.check import Row
from tools.zoo.table import line, markdown, reasons


def test_the_page_and_the_line():
    rows = [
        Row('A',
            dict(width=2, heads=1),
            30,
            1000000,
            .9,
            .5,
            1e-7, {'output of the network': ['head']},
            train_difference=2e-15),
        Row('B', difference=2e-1, problem='supernet and subnet differ')
    ]
    page = markdown(rows)
    assert '1 of the 2 backbones' in page and 'Less is' not in page
    assert '| A | 2 width, 1 heads | 30 | 1.00 M | 90.0% | 50.0% | ' \
        '1.0e-07 | 2.0e-15 |' in page
    assert '- **B**\n  - supernet and subnet differ\n' in page
    assert 'PROBLEM' in line(rows[1]) and 'PROBLEM' not in line(rows[0])
    rows.append(Row('C', share=.7, difference=1e-7))
    assert 'Less is in units of C (70.0%); the reasons' in markdown(rows)


def test_the_page_of_the_docs_is_of_these_backbones():
    """It was that of an older list, and the README counted its rows."""
    root = Path(__file__).parents[3]
    page = (root / 'docs/en/coverage.md').read_text(encoding='utf-8')
    table, _, stay = page.partition('## What stays, and why')
    rows = re.findall(r'^\| (\w+) \| \d', table, flags=re.M)
    assert rows == registered_backbones()
    for name, reason in NO_NETWORK.items():
        assert f'{name}, {reason}' in table
    assert set(re.findall(r'^- \*\*(\w+)\*\*$', stay, flags=re.M)) <= set(rows)
    equal = re.search(r'(\d+) of the (\d+) backbones', table).groups()
    assert equal == (str(len(rows)), ) * 2
    readme = (root / 'README.md').read_text(encoding='utf-8')
    assert '{} of its {} backbones'.format(*equal) in readme


def test_a_reason_in_many_blocks_is_one_line():
    row = Row(
        'A',
        fixed={
            'output of the network': ['head'],
            'Attention "layers.0.attn" mixes channels':
            ['layers.0.q', 'layers.0.k'],
            'Attention "layers.11.attn" mixes channels': ['layers.11.q'],
            "it fails (RuntimeError: shape '[1, 4, 48]' is invalid for input "
            'of size 66)': ['stem'],
            'outputs differ by 1.2e-04': ['neck'],
        })
    assert reasons(row) == [
        'Attention "layers.*.attn" mixes channels (`layers.*.q`, '
        '`layers.*.k`; 3 modules)',
        'it fails (it reshapes to numbers of its own) (`stem`; 1 module)',
        'outputs differ (`neck`; 1 module)'
    ]
