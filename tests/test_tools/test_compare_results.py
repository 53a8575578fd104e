# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: tables, compared with numbers worked out by hand."""
import csv
import json
import math

import pytest

from tools.compare.experiment import Experiment, Row
from tools.compare.results import (as_csv, markdown, mean_spread, paired,
                                   write_results)
from tools.compare.store import Store, write_text


def run(row, seed, top1, budget='50%', **kwargs):
    return dict(
        row=row,
        budget=budget,
        seed=seed,
        top1=top1,
        loss=1.,
        macs=5_000_000,
        params=1000,
        amount=5_050_000,
        share_of_budget=.99,
        share_of_supernet=.5,
        search_seconds=2.,
        train_seconds=3.,
        trace=[dict(step=0)],
        settings=dict(data=dict(source='digits'), amp=False),
        versions=dict(dms_razor='1', torch='2'),
        date='2026-01-02T03:04:05',
        **kwargs)


@pytest.fixture
def experiment():
    return Experiment(
        print, [Row('dms'), Row('even', 'uniform')], references=('even', ))


def test_mean_and_sample_deviation():
    assert mean_spread([1., 2., 3.]) == (2., 1.)
    assert mean_spread([4.]) == (4., None)


def test_differences_are_paired_by_seed():
    mine = [run('dms', seed, top1) for seed, top1 in enumerate([70, 72, 77])]
    others = [run('even', seed, top1) for seed, top1 in ((2, 74), (1, 71))]
    mean, error, number = paired(mine, others)
    assert (mean, number) == (2., 2)  # 72 - 71 and 77 - 74
    assert error == pytest.approx(1.)  # deviation sqrt 2 over sqrt 2
    assert math.isnan(paired(mine[:2], others[1:])[1])
    assert paired(mine[:1], others) is None


def test_table(experiment):
    runs = [
        run('even', 0, 60.),
        run('even', 1, 62.),
        run('dms', 0, 64.),
        run('dms', 1, 64.),
        run('gone', 0, 1.)
    ]
    text = markdown('mine', experiment, runs)
    lines = [[cell.strip() for cell in line.strip('|').split('|')]
             for line in text.splitlines() if line.startswith('| 50%')]
    assert [line[1] for line in lines] == ['dms', 'even', 'gone']
    assert lines[0][2:9] == [
        '5 M', '1 K', '99.0 %', '64.00 ± 0.00', '2', '+3.00 ± 1.00', '2'
    ]
    assert lines[1][5:8] == ['61.00 ± 1.41', '2', '–']
    assert '5 runs on digits, dms_razor 1, torch 2, 2026-01-02.' in text


def test_one_line_a_run():
    lines = list(csv.DictReader(as_csv([run('dms', 3, 64.)]).splitlines()))
    assert lines[0]['row'] == 'dms' and lines[0]['seed'] == '3'
    assert lines[0]['top1'] == '64.0' and lines[0]['search_cpu_seconds'] == ''


def test_results_are_compact_and_enough_for_the_table(experiment, tmp_path,
                                                      capsys):
    store = Store(tmp_path)
    for seed in (1, 0):
        write_text(
            store.run_file(f'dms-{seed}'), json.dumps(run('dms', seed, 5.)))
    write_results('mine', experiment, store)
    table = (tmp_path / 'table.md').read_text()
    assert table in capsys.readouterr().out
    kept = json.loads((tmp_path / 'results.json').read_text())
    assert kept['experiment'] == 'mine' and kept['references'] == ['even']
    assert [item['seed'] for item in kept['runs']] == [0, 1]
    assert [len(item['trace']) for item in kept['runs']] == [1, 0]
    assert 'settings' not in kept['runs'][0]
    assert kept['settings']['dms']['data'] == dict(source='digits')
    for path in (tmp_path / 'runs').iterdir():
        path.unlink()
    (tmp_path / 'runs').rmdir()
    (tmp_path / 'table.md').unlink()
    assert len(write_results('mine', experiment, store)) == 2
    assert (tmp_path / 'table.md').read_text() == table


def test_nothing_to_write(experiment, tmp_path):
    assert write_results('mine', experiment, Store(tmp_path)) == []
    assert not list(tmp_path.iterdir())


def test_columns_of_what_only_some_runs_have(experiment):
    runs = [
        run('dms', 0, 70., top1_before_training=50., judged=dict(regret=.1)),
        run('dms', 1, 72., top1_before_training=54., judged=dict(regret=.3)),
        run('even', 0, 60.)
    ]
    head, _, first, second = markdown('x', experiment,
                                      runs).strip().splitlines()[-4:]
    names = [cell.strip() for cell in head.split('|')]
    for name, value in (('as cut (%)', '52.00 ± 2.83'), ('regret',
                                                         '0.20 ± 0.14')):
        place = names.index(name)
        assert first.split('|')[place].strip() == value
        assert second.split('|')[place].strip() == '–'
