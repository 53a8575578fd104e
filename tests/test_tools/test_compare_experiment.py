# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: what an experiment is, and what is refused."""
import sys
from functools import partial

import pytest
from torch import nn

from dms_razor.core import IMPORTANCES, SELECTORS
from tools.compare.experiment import (Data, Experiment, ExperimentError,
                                      Recipe, Row, load, plain, shipped, slug)
from tools.compare.methods import METHODS


def linear(classes):
    return nn.Linear(3, classes)


def experiment(**kwargs):
    return Experiment(**{'network': linear, 'rows': [Row('dms')], **kwargs})


def test_budgets_have_labels():
    found = experiment(budgets=['30%', .5, '2.0M', linear, 1200])
    assert list(found.labelled) == ['30%', '50%', '2.0M', 'linear', '1200']
    assert found.labelled['50%'] == .5
    assert experiment(budgets={'mine': .5}).labelled == {'mine': .5}


def test_lengths_are_whole_batches():
    recipe = Recipe(epochs=1.5, batch=128)
    assert recipe.length(10_000) == 117  # 78 whole batches an epoch
    assert Recipe(steps=7).length(10_000) == 7
    with pytest.raises(ExperimentError, match='one batch of 128'):
        recipe.length(127)


@pytest.mark.parametrize('make, message', [
    (lambda: Recipe(schedule='step'), "'step': choose one of one_cycle"),
    (lambda: Recipe(optimizer='lion'), "'lion': choose one of sgd"),
    (lambda: Row('a', after='later'), '"after" of row "a" is'),
    (lambda: Row('a', 'network'), '"network" goes with'),
    (lambda: Row('a', network=linear), '"network" goes with'),
    (lambda: Row('a', 'network', network=linear, supernet=linear),
     'has no supernet'),
    (lambda: experiment(rows=[]), 'at least one row'),
    (lambda: experiment(rows=[Row('a b'), Row('a_b')]), 'name of its own'),
    (lambda: experiment(references=['even']), r"\['even'\] are no rows"),
    (lambda: experiment(rows=[Row('a', budgets=['9%'])]), "'9%': choose one"),
    (lambda: experiment().row('x'), "the row is 'x': choose one of dms"),
    (lambda: load('nothing'), 'no experiment "nothing": .*scale_down'),
])
def test_mistakes_are_told(make, message):
    with pytest.raises(ExperimentError, match=message):
        make()


def test_a_file_without_an_experiment(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('experiment = 3')
    with pytest.raises(ExperimentError, match='mine.py defines no experim'):
        load(str(path))


def test_a_file_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    (tmp_path / 'my_own_networks.py').write_text('def net(classes): pass')
    path = tmp_path / 'mine.py'
    path.write_text('from my_own_networks import net\n'
                    'from tools.compare.experiment import Experiment, Row\n'
                    "experiment = Experiment(net, [Row('dms')])")
    name, found = load(str(path))
    assert name == 'mine' and found.network.__name__ == 'net'


def test_settings_are_plain():
    found = plain(
        dict(
            data=Data(size=8, train_images=None),
            net=partial(linear, 3, classes=2),
            empty={},
            many=(1, 2.5)))
    assert found['data']['size'] == 8 and 'train_images' not in found['data']
    assert found['net'] == ['linear', [3], {'classes': 2}]
    assert found['many'] == [1, 2.5] and 'empty' not in found


def test_names_of_files():
    assert slug('dms, 50%') == 'dms__50pct'


@pytest.mark.parametrize('name', shipped())
def test_what_is_shipped_names_what_there_is(name):
    found = load(name)[1]
    assert found.title
    for row in found.rows:
        METHODS.find(row.method)
        SELECTORS.find(row.search.get('selector', 'dms'))
        IMPORTANCES.find(row.search.get('importance', 'taylor'))
    assert isinstance(found.network(classes=7), nn.Module)


def test_something_is_shipped():
    assert {'scale_down', 'pretrained', 'mobilenet'} <= set(shipped())
