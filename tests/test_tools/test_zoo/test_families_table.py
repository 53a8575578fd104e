# Copyright (c) dms_razor contributors. All rights reserved.
"""The page of other packages' networks."""
from tools.zoo.families_table import line, page
from tools.zoo.record import Record

ROWS = [
    Record(
        'timm',
        'resnet',
        '`resnet18`',
        'equal',
        params=2_000_000,
        units=dict(width=3, depth=1),
        share=.98,
        eval_error=2e-15,
        train_error=3e-6,
        precision='float64',
        train_precision='float32',
        reload_error=0.,
        macs=dict(supernet=[1000, 1000], subnet=[10, 10]),
        seconds=dict(build=9., trace=2.34),
        revision='abc1234'),
    Record(
        'timm',
        'odd',
        '`odd_s`',
        'equal',
        params=1000,
        units=dict(width=1),
        share=.4,
        eval_error=0.,
        precision='float64',
        outside=[['output of the network', 50, ['head']],
                 ['blocks.3 mixes | channels', 550, ['blocks.3.a']]]),
    Record('timm', 'bad', status='wrong', problem='it differs', stage='eval'),
    Record('timm', 'none', status='not covered', problem='no operators'),
]


def test_the_page():
    text = page(ROWS, dict(date='2026-01-02', torch='2.9', timm='1.0'),
                dict(timm=['resnet', 'odd', 'bad', 'none']))
    assert '--of timm` on 2026-01-02 with torch 2.9, timm 1.0. ' \
        'Rows by commit: unknown 3, abc1234 1.' in text
    # of four rows three run here and two are equal
    assert '4 networks: 2 equal, 1 not covered, 1 wrong (66.7% of' in text
    assert 'units: 69.0%.' in text
    assert ('| resnet | `resnet18` | equal | 3 width, 1 depth | 2.00 M | '
            '98.0% | 2.0e-15 | 3.0e-06 (float32) | 0.0e+00 | 1,000 | '
            '2.3 s | abc1234 |') in text
    assert '- **bad** (wrong): it differs\n' in text
    assert '- **none** (not covered): no operators' in text
    assert '- **odd** (40.0%)\n' \
        '  - 5.0%: output of the network (`head`)' in text
    assert '  - 55.0%: blocks.* mixes / channels (`blocks.3.a`)' in text
    assert '**resnet**' not in text


def test_the_line():
    assert 'timm resnet' in line(ROWS[0]) and '[' not in line(ROWS[0])
    assert '[eval] it differs' in line(ROWS[2])


def test_a_page_that_is_not_complete_gives_no_shares():
    """What is quick is tried first, and would stand for the rest."""
    text = page(ROWS, dict(date='2026-01-02'),
                dict(timm=['new', 'resnet', 'odd', 'bad', 'none']))
    assert '**Not complete**: 4 of 5 networks have a row' in text
    assert 'Without a row: new.' in text
    assert 'Median' not in text and '66.7%' not in text
