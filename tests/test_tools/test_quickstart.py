# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/quickstart.py: the README's first command, a short version of it."""
import json
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config

from dms_razor.subnet.structure import exported, structure_table


@pytest.fixture
def comparison(load_tool):
    return load_tool('_steps')


def test_ends_with_table_and_picture(run_tool, tmp_path):
    output = run_tool('quickstart.py', '--epochs', 5, '--seeds', 1, '--target',
                      '60%', '--work-dir', 'out')
    steps = [line[:4] for line in output.splitlines() if line[1:2] == '/']
    assert steps == ['1/4 ', '2/4 ', '3/4 ', '4/4 ']
    assert 'elements   683' in output
    for name in ('supernet', 'searched', 'narrowed uniformly'):
        assert f'| {name} ' in output
    assert (tmp_path / 'out/table.md').read_text() in output

    picture = tmp_path / 'out/search/subnet/structure.png'
    assert f'Picture   {picture.relative_to(tmp_path)}' in output
    page = tmp_path / 'out/search/subnet/report.html'
    assert f'Page      {page.relative_to(tmp_path)}' in output
    assert '<td>searched, top-1 (%)</td>' in page.read_text(encoding='utf-8')
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert output.count('python tools/train.py') == 1

    whole, searched, even = costs(tmp_path / 'out')
    for macs in (searched, even):
        assert .99 * .6 * whole <= macs <= .6 * whole
    assert f'| {searched:,} ' in output and f'| {even:,} ' in output

    found = json.loads(
        (tmp_path / 'out/search/subnet/report.json').read_text())
    for line in structure_table(exported(found)).splitlines():
        assert line in output

    # Both small networks without training, the second one cut from the
    # trained supernet.
    head, _, whole, searched, even = [[
        cell.strip() for cell in line.strip('|').split('|')
    ] for line in (tmp_path / 'out/table.md').read_text().splitlines()]
    assert head[-1] == 'as cut (%)' and whole[-1] == ''
    assert float(searched[-1]) > float(even[-1]) >= 5

    report = json.loads((tmp_path / 'out/uniform/report.json').read_text())
    assert report['removed'] == []
    cut = json.loads((tmp_path / 'out/cut-0/subnet/report.json').read_text())
    assert [unit['kept'] for unit in cut['units']
            ] == [unit['kept'] for unit in report['units']]
    wide = [unit for unit in report['units'] if unit['kind'] == 'width']
    assert len(wide) == 16
    # sqrt(60 %), to within the rounding of 16 channels
    shares = [unit['kept'] / unit['total'] for unit in wide]
    assert min(shares) > .71 and max(shares) < .84


def costs(out):
    """MACs of the supernet and of both exported networks."""
    reports = [
        json.loads((out / folder / 'report.json').read_text())['macs']
        for folder in ('search/subnet', 'uniform')
    ]
    return (reports[0]['supernet'], *[item['counted'] for item in reports])


def test_short_runs_keep_the_shape_of_the_schedule(load_tool, tmp_path):
    quickstart = load_tool('quickstart')
    recipe = load_tool('_steps').Recipe(tmp_path, *[quickstart.SUPERNET] * 3,
                                        partial(quickstart.load, epochs=10))
    cfg = recipe.config(recipe.supernet, 'a', 3)
    assert cfg.work_dir == str(tmp_path / 'a')
    full = Config.fromfile(quickstart.SUPERNET)
    assert cfg.randomness.seed == 3
    assert cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == 10
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 2
    assert cfg.param_scheduler[1].end == 10
    assert full.param_scheduler[1].end == full.train_cfg.max_epochs


def test_table_is_mean_and_sample_deviation(comparison):
    net = comparison.Network('a', Path('a.py'), 1234, 56, top1=[97., 98., 99.])
    one = comparison.Network('bb', Path('b.py'), 7, 8, 2, top1=[98.5])
    head, rule, first, second = comparison.table([net, one]).splitlines()
    assert len({len(head), len(rule), len(first), len(second)}) == 1
    assert [cell.strip() for cell in first.strip('|').split('|')] == [
        'a', '1,234', '56', '0', '98.00 ± 1.00', '97.00, 98.00, 99.00'
    ]
    assert [cell.strip() for cell in second.strip('|').split('|')
            ] == ['bb', '7', '8', '2', '98.50', '98.50']


@pytest.mark.parametrize('arguments, message', [
    (['--seeds', '0'], 'at least once'),
    (['--epochs', '4'], 'at least 5'),
])
def test_bad_arguments(load_tool, monkeypatch, capsys, arguments, message):
    quickstart = load_tool('quickstart')
    monkeypatch.setattr('sys.argv', ['quickstart.py', *arguments])
    with pytest.raises(SystemExit):
        quickstart.parse_args()
    assert message in capsys.readouterr().err


def test_unreachable_target_ends_before_training(load_tool, monkeypatch,
                                                 tmp_path):
    quickstart = load_tool('quickstart')
    monkeypatch.setattr('sys.argv', [
        'quickstart.py', '--target', '10', '--work-dir',
        str(tmp_path / 'out')
    ])
    with pytest.raises(ValueError, match='966|smallest'):
        quickstart.main()
    assert not (tmp_path / 'out/search/subnet').exists()
