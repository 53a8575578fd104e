# Copyright (c) dms_razor contributors. All rights reserved.
"""A report in a few sentences."""
import copy

import torch
from toy_nets import make_search, plain_net

from dms_razor.subnet import export_subnet
from dms_razor.subnet.structure import Stage, by_stage, exported
from dms_razor.subnet.summary import decided, share, summarise

REPORT = dict(
    network='Net',
    asked=dict(metric='macs', target=1000., fraction=.5),
    macs=dict(supernet=2000, searched=990, counted=990),
    params=dict(supernet=300, searched=150, counted=150),
    units=[
        dict(kind='width', kept=3, total=8, groups=1, step=2),
        dict(kind='width', kept=4, total=4, groups=1, step=1),
        dict(kind='depth', kept=1, total=3, groups=1, step=1),
        dict(kind='heads', kept=2, total=4, groups=1, step=1),
    ],
    decision=dict(
        steps=500,
        moved_by_task=.1,
        moved_by_resource=.2,
        resource_on=.5,
        from_resource_only=.2,
        from_even=.3,
        by_projection=.01))


def test_what_it_says():
    assert summarise(REPORT) == (
        'Net with 49.5 % of the MACs (990 of 2 K), 50.0 % of the parameters '
        '(150 of 300); asked for were at most 1 K macs. It keeps 10 of 20 '
        'channels, 1 of 3 removable blocks, 2 of 4 heads. The task decided '
        'the structure.')


def test_channels_of_removed_blocks_are_not_kept(tmp_path):
    search = make_search(plain_net(), target='50%')
    kept = search.space.layout.size.clone()
    depth = next(n for n, unit in enumerate(search.space.units)
                 if unit.kind == 'depth')
    kept[depth] = 1
    export = export_subnet(
        tmp_path / 'subnet',
        search.model,
        search.space,
        search.keep(kept),
        picture=False)
    net = export.model
    blocks = [b for b in net.blocks if not isinstance(b, torch.nn.Identity)]
    assert len(blocks) == 1
    inner = blocks[0].conv1.out_channels
    assert (f'It keeps {net.stem.out_channels + inner} of 48 channels, 1 of 3 '
            'removable blocks.') in export.report.summary()
    page = (export.path / 'report.html').read_text(encoding='utf-8')
    assert page.count('<span>removed</span>') == 2
    assert by_stage(exported(export.report.to_dict())) == [
        Stage('stem', net.stem.out_channels, 12),
        Stage('blocks', inner, 36, 1, 3)
    ]


def test_several_budgets():
    report = copy.deepcopy(REPORT)
    report['asked']['limits'] = dict(macs=1000., params=160.)
    assert 'at most 1 K macs and 160 params.' in summarise(report)


def test_a_search_that_is_too_short_says_so():
    report = copy.deepcopy(REPORT)
    report['decision'].update(steps=20, by_projection=.8)
    assert decided(report).startswith('80% of the cut was done by the proj')
    assert '20 steps are few' in decided(report)
    del report['decision']
    assert decided(report).startswith('No search of this budget decided')


def test_nothing_is_none_of_it():
    assert share(0, 0) == '100.0 %'
    assert 'Nothing was cut.' in summarise(dict(REPORT, units=[]))


def test_an_export_prints_it(tmp_path):
    search = make_search(plain_net(), target='50%')
    export = search.export(tmp_path / 'subnet')
    cost = export.manifest.macs['counted'] / export.manifest.macs['supernet']
    first, path = repr(export).splitlines()
    assert first.startswith(f'Net with {100 * cost:.1f} % of the MACs')
    assert 'No search of this budget decided' in first
    assert path == f'  in {tmp_path / "subnet"}'
    assert export.report.summary() in \
        (tmp_path / 'subnet/report.md').read_text()
    assert torch.is_tensor(next(export.model.parameters()))
