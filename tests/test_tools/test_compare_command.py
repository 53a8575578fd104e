# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: the whole way, on digits."""
import json
import os
import subprocess
import sys

import pytest

from tools.compare.command import main, parse_seeds
from tools.compare.store import Store

EXPERIMENT = '''
from functools import partial
from tools.compare.experiment import Data, Experiment, Recipe, Row
from tools.compare.methods import METHODS
from tools.compare.networks import ResNet, initialise

@METHODS.register('broken')
def broken(job):
    raise RuntimeError('out of luck')

short = Recipe(epochs=1, batch=32, lr=.1)
experiment = Experiment(
    network=partial(ResNet, (8, 16), (2, 2)),
    budgets={'small': partial(ResNet, (4, 8), (2, 2)), '50%': .5},
    rows=[
        Row('dms', search=dict(lr=1.)),
        Row('hand', 'network', network=partial(ResNet, (4, 8), (2, 2)),
            budgets=['small']),
        Row('sweep', search=dict(lr=1.), one_search=True, after='none'),
        Row('tuned', after='finetune', search=dict(depth=False)),
        Row('evolved', 'evolution', after='none', budgets=['50%'],
            options=dict(population=3, generations=2, batches=1)),
        Row('one-shot', 'evolution', after='none', budgets=['50%'],
            options=dict(one_shot=True, population=3, generations=1)),
        Row('even, cut', 'uniform', after='none', budgets=['50%']),
        Row('scored', 'taylor', options=dict(scope='global', batches=2),
            after='none', budgets=['50%']),
        Row('bad', 'broken', budgets=['50%']),
    ],
    references=['hand'],
    data=Data(size=8, train_images=160, test_images=100),
    search=Recipe(epochs=2, batch=32, lr=.05, schedule='constant'),
    width_only_epochs=1,
    train=short,
    pretrain=short,
    init=initialise)
'''


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in this process; other tests registered 'broken'."""
    from tools.compare.methods import METHODS
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text(EXPERIMENT)

    def run(*arguments):
        METHODS.pop('broken', None)
        return main(
            ['mine.py', '--data', 'digits', '--out', 'out', *arguments])

    yield run
    METHODS.pop('broken', None)


def runs(tmp_path):
    return {
        (run['row'], run['budget'], run['seed']): run
        for run in Store(tmp_path / 'out').runs()
    }


def test_the_whole_way(call, tmp_path, capsys):
    assert call('--dry-run') is None
    assert 'Runs      12, of which 0 are finished' in capsys.readouterr().out
    assert not (tmp_path / 'out').exists()
    problem = call()
    assert problem == ('1 runs failed (bad__50pct__s0): '
                       'RuntimeError: out of luck')
    found = runs(tmp_path)
    assert len(found) == 11
    hand = found['hand', 'small', 0]
    # 3·9·4 + four 3x3 convolutions 4·4 at 8x8 and 8·8 at 4x4 (one 4·8), the
    # 1x1 shortcut, the head
    macs = 64 * 9 * (3 * 4 + 4 * 16) + 16 * (9 * (32 + 3 * 64) + 32) + 80
    assert hand['macs'] == hand['amount'] == macs
    assert hand['search_steps'] == hand['search_images'] == 0
    dms = found['dms', '50%', 0]
    assert .97 < dms['share_of_budget'] <= 1
    assert dms['search_steps'] == 15 and dms['search_images'] == 15 * 32
    assert dms['train_images'] == 5 * 32
    assert dms['macs'] < found['dms', 'small', 0]['macs'] * 2.2
    units = {unit['name']: unit for unit in dms['structure']}
    assert all(unit['kept'] <= unit['total'] for unit in units.values())
    # the same search, to the smaller budget
    assert found['sweep', 'small', 0]['structure'] == found['dms', 'small',
                                                            0]['structure']
    assert dms['trace'][0]['step'] == 0 and dms['trace'][-1]['step'] == 14
    masks = dms['trace'][-1]['masks']
    assert len(masks) == 16 and masks == sorted(masks)
    even = found['even, cut', '50%', 0]
    shares = [
        u['kept'] / u['total'] for u in even['structure']
        if u['kind'] == 'width'
    ]
    assert max(shares) - min(shares) < .2  # all but rounded alike
    assert even['search_images'] == 0
    scored = found['scored', '50%', 0]
    assert scored['search_images'] == 2 * 32
    assert scored['structure'] != even['structure']
    evolved = found['evolved', '50%', 0]
    assert evolved['decision'] == {} == hand['decision']
    assert 10 < dms['decision']['steps'] <= 15
    assert .97 < evolved['share_of_budget'] <= 1
    # two generations of three: one batch to score, four for statistics
    assert evolved['search_steps'] == 6
    assert evolved['search_images'] == 6 * 5 * 32
    # its supernet is trained besides, two epochs of five batches
    one_shot = found['one-shot', '50%', 0]
    assert one_shot['search_images'] == 2 * 5 * 32 + 3 * 5 * 32
    assert len(dms['trace'][0]['kept']) == len(dms['structure'])
    assert dms['layers']['head'] == 10
    last = json.loads(
        (tmp_path / 'out/subnets/dms__50pct__s0/report.json').read_text())
    assert last['macs']['counted'] == dms['macs']
    for name in ('results.json', 'results.csv', 'table.md', 'masks.png'):
        assert (tmp_path / 'out' / name).exists()
    assert 'tuned 50% seed 0: top-1' in capsys.readouterr().out


def test_one_search_serves_all_budgets_and_one_supernet_all_rows(
        call, tmp_path, capsys):
    assert call('--rows', 'sweep,tuned') is None
    output = capsys.readouterr().out
    assert output.count('supernet seed 0: pretraining 5/5') == 1
    assert output.count('seed 0: search 15/15') == 3  # one, and two of tuned
    found = runs(tmp_path)
    small, large = (found['sweep', budget, 0] for budget in ('small', '50%'))
    assert small['macs'] < large['macs'] <= large['amount']
    assert small['trace'] == large['trace']
    assert small['train_images'] == 0
    assert found['tuned', '50%', 0]['top1_before_training'] >= 0
    # all blocks stay, as the row asks
    assert {unit['kind']
            for unit in found['tuned', '50%', 0]['structure']} == {'width'}


def test_what_is_finished_is_skipped_and_seeds_are_added(
        call, tmp_path, capsys):
    assert call('--rows', 'hand') is None
    path = Store(tmp_path / 'out').run_file('hand__small__s0')
    before = path.stat().st_mtime_ns
    assert call('--rows', 'hand', '--seeds', '0-1') is None
    assert path.stat().st_mtime_ns == before
    output = capsys.readouterr().out
    assert 'hand, small, seed 0: finished\n  hand, small, seed 1: to' in output
    first, second = runs(tmp_path).values()
    assert first['loss'] != second['loss']
    assert first['date'] <= second['date']
    table = tmp_path / 'out' / 'table.md'
    table.unlink()
    assert call('--table-only') is None
    assert '| small | hand | ' in table.read_text()


def test_a_run_can_be_made_again(call, tmp_path):
    """The seed decides everything: the same figures in an empty folder."""
    call('--rows', 'dms', '--threads', '1')
    first = runs(tmp_path)['dms', '50%', 0]
    Store(tmp_path / 'out').run_file('dms__50pct__s0').unlink()
    call('--rows', 'dms', '--threads', '1')
    again = runs(tmp_path)['dms', '50%', 0]
    for name in ('top1', 'loss', 'structure', 'trace'):
        assert first[name] == again[name], name


def test_other_settings_are_refused(call, tmp_path, capsys):
    call('--rows', 'hand')
    text = EXPERIMENT.replace('short = Recipe(epochs=1',
                              'short = Recipe(steps=2')
    (tmp_path / 'mine.py').write_text(text)
    problem = call('--rows', 'hand')
    assert 'other settings or data (hand small seed 0)' in problem
    assert 'another --out' in problem
    # what the row does not use may change
    text = EXPERIMENT.replace('lr=.05, schedule', 'lr=.06, schedule')
    (tmp_path / 'mine.py').write_text(text)
    assert call('--rows', 'hand') is None


def test_two_processes_share_the_work(repo, call, tmp_path):
    command = [
        sys.executable, repo / 'tools' / 'compare', 'mine.py', '--data',
        'generated', '--out', 'out', '--rows', 'tuned', '--seeds', '0-1'
    ]
    workers = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={
                **os.environ, 'OMP_NUM_THREADS': '1'
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True) for _ in range(2)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    both = ''.join(outputs)
    for budget in ('small', '50%'):
        for seed in (0, 1):
            line = f'tuned {budget} seed {seed}: top-1'
            assert both.count(line) == 1, line
    assert both.count('supernet seed 0: pretraining: top-1') == 1
    assert len(runs(tmp_path)) == 4


def test_seeds():
    assert parse_seeds('0-2, 7') == [0, 1, 2, 7]
    with pytest.raises(ValueError, match='"a" cannot be read: write 0-9'):
        parse_seeds('a')


@pytest.mark.parametrize('arguments, message', [
    (['--rows', 'x'], "the row is 'x': choose one of dms, hand"),
    (['--table-only'], 'out has no finished run'),
    (['--data', 'nowhere'], 'nowhere has no folder "train"'),
])
def test_mistakes_are_one_line(call, arguments, message):
    assert message in call(*arguments)


def test_rows_are_chosen_by_names_with_commas(call, capsys):
    assert call('--rows', 'even, cut,hand', '--dry-run') is None
    output = capsys.readouterr().out
    assert 'Runs      2, of' in output
    assert 'even, cut, 50%, seed 0: to do' in output
