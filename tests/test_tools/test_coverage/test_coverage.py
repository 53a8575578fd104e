# Copyright (c) dms_razor contributors. All rights reserved.
"""The fast part of the coverage table, and what makes a row."""
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dms_razor.trace import trace
from tools.coverage.backbones import (CASES, FAST, NO_NETWORK, PRETRAINING,
                                      backbone_names, build_case,
                                      registered_backbones)
from tools.coverage.check import (Pooled, Row, check_network, randomise,
                                  removable_shares)
from tools.coverage.table import line, markdown, reasons


def test_every_backbone_of_mmpretrain_is_in_the_table():
    """By the registry, not by the list that the package exports alone."""
    from mmpretrain.models import backbones
    from mmpretrain.models.backbones.base_backbone import BaseBackbone
    from mmpretrain.registry import MODELS
    derived = {
        name
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type) and issubclass(cls, BaseBackbone)
        and cls.__module__.startswith('mmpretrain.')
    }
    assert {'MAEViT', 'MoCoV3ViT', 'ResNet'} <= derived
    assert derived | set(backbones.__all__) <= set(backbone_names())
    assert set(CASES) | set(NO_NETWORK) == set(backbone_names())
    assert not set(CASES) & set(NO_NETWORK)
    assert registered_backbones() == list(CASES)
    with pytest.raises(KeyError, match='coverage/backbones'):
        build_case('CSPNet')


def test_pretraining_forms_are_what_their_reason_says():
    from mmpretrain.registry import MODELS
    for name, base in PRETRAINING.items():
        assert issubclass(MODELS.get(name), MODELS.get(base))
        assert base in CASES and base in NO_NETWORK[name]


def test_a_new_backbone_comes_last(monkeypatch):
    """Until the table has a case for it, its row says so."""
    from mmpretrain.models.backbones.base_backbone import BaseBackbone
    from mmpretrain.registry import MODELS
    new = type('ANet', (BaseBackbone, ), {})
    monkeypatch.setitem(MODELS.module_dict, 'ANet', new)
    assert 'ANet' not in registered_backbones(), 'not a class of mmpretrain'
    new.__module__ = 'mmpretrain.models.selfsup.new'
    assert registered_backbones()[-1] == 'ANet'


@pytest.mark.parametrize('name', FAST)
def test_fast_rows_are_equal(name):
    row = check_network(name, *build_case(name))
    assert not row.problem and row.equal and row.difference < 1e-5
    assert row.share > .99 and row.width_share > .9
    assert list(row.fixed) == ['output of the network']


class Wrong(nn.Module):
    """Channels counted in code that no tracer sees: half of what is there."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.flag = torch.zeros(1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * (x.shape[1] / 8))


def test_a_network_that_cannot_be_pruned_truly_names_what_stays():
    image = torch.randn(1, 3, 4, 4)
    row = check_network('wrong', Pooled(Wrong(), image), image)
    assert row.equal and any('first' in module
                             for modules in row.fixed.values()
                             for module in modules)


def test_a_failure_is_in_the_row_not_raised():
    row = check_network('none', nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
                        torch.randn(1, 3))
    assert not row.equal and 'RuntimeError' in row.problem


def test_shares_of_parameters():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 5, 1, bias=False),
        nn.Flatten(), nn.Linear(5 * 4, 2, bias=False))
    units = {'1': dict(fixed=True)}
    space = trace(randomise(model), torch.randn(1, 3, 4, 4), units=units)
    shares = removable_shares(model, space)
    expected = (27 * 8 + 8 * 5) / (27 * 8 + 40 + 40)
    assert shares['share'] == shares['width_share'] == pytest.approx(expected)


def test_the_page_and_the_line():
    rows = [
        Row('A', dict(width=2, heads=1), 30, 1000000, .9, .5, 1e-7,
            {'output of the network': ['head']}),
        Row('B', difference=2e-1, problem='supernet and subnet differ')
    ]
    page = markdown(rows)
    assert '1 of the 2 backbones' in page and 'Less is' not in page
    assert '| A | 2 width, 1 heads | 30 | 1.00 M | 90.0% | 50.0% | 1.0e-07 |' \
        in page
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
