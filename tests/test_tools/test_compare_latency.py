# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks at equal latency, by a device whose clock is a formula."""
import json

import pytest
import torch

from dms_razor.counting import count_macs
from dms_razor.timing import bench

EXPERIMENT = '''
from torch import nn

from tools.compare.experiment import Data, Experiment, Recipe, Row


def net(classes):
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))


recipe = Recipe(steps=4, batch=20, lr=.05, schedule='constant')
experiment = Experiment(net, [Row('dms')], data=Data(size=8, train_images=60),
                        search=recipe, width_only_epochs=0, train=recipe)
'''


def truth(model, inputs):
    """Milliseconds; the table's sum cannot be right about the last factor."""
    macs = count_macs(model, tuple(inputs)).total
    return (.1 + 1e-5 * macs) * (1 + macs / 2e6)


@pytest.fixture
def tool(load_tool, monkeypatch):
    found = load_tool('compare_latency')
    monkeypatch.setattr(bench, 'runner', lambda model, inputs, *_:
                        (model, inputs))
    monkeypatch.setattr(
        bench, 'interleaved',
        lambda runs, rounds: [dict(ms=truth(*run), spread=0.) for run in runs])
    return found


def test_every_row_fills_the_same_latency(tool, tmp_path, capsys):
    file, out = tmp_path / 'mine.py', tmp_path / 'out'
    file.write_text(EXPERIMENT)
    command = [str(file), '--out', str(out), '--seeds', '0,1']
    tool.main([*command, '--until', 'search'])
    assert not (out / 'filled').exists()
    searched = {path.stem for path in (out / 'searches').glob('*.pth')}
    assert searched == {
        f'{row}_s{seed}'
        for row in ('latency', 'macs', 'even', 'steps')
        for seed in (0, 1)
    }
    tool.main(command)
    text = capsys.readouterr().out
    result = json.loads((out / 'results.json').read_text())
    whole = result['times']['supernet']
    assert len(result['runs']) == 10 and len(result['times']) == 11
    for run in result['runs']:
        name = f'{run["row"]}_s{run["seed"]}'
        assert run['share'] == pytest.approx(.5)
        assert run['measured'] == pytest.approx(result['times'][name] / whole)
        least = .8 if run['row'] in ('steps', 'rounded') else .93
        assert least < run['measured'] / .5 <= 1.01, name
        assert 0 <= run['top1'] <= 100
        if run['row'] in ('steps', 'rounded'):
            assert all(kept % 8 == 0 for _, kept, _ in run['structure'])
    assert '| searched under latency | ' in text
    assert '| narrowed evenly | ' in text
    # what is there is not made again
    (out / 'searches').rename(out / 'elsewhere')
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool.Comparison, 'state', lambda *_: None)
        tool.main(command)
    assert json.loads((out / 'results.json').read_text()) == result
    # nor lost, where only some rows are asked for
    (out / 'elsewhere').rename(out / 'searches')
    tool.main([str(file), '--out', str(out), '--rows', 'even'])
    again = json.loads((out / 'results.json').read_text())
    assert again['times'] == result['times']
    assert sorted(map(tool.name_of, again['runs'])) == sorted(
        map(tool.name_of, result['runs']))
