# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: one run, with a method that is known by heart."""
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from tools.compare import runs
from tools.compare.data import Images
from tools.compare.experiment import (Data, Experiment, ExperimentError,
                                      Recipe, Row)
from tools.compare.methods import METHODS, Found
from tools.compare.runs import Bench, Run, versions
from tools.compare.store import Store
from tools.compare.training import Machine


class Net(nn.Module):
    """A norm that shows the statistics of the images, and a classifier."""

    def __init__(self, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        return self.head(self.norm(x).mean((2, 3)))


@pytest.fixture
def bench(tmp_path):
    """``bench(row=..., ...)`` -> a bench whose method 'seven' gives sevens."""
    pixels = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8)
    images = Images('x', (pixels, torch.arange(40) % 2),
                    (pixels, torch.arange(40) % 2), 2, Data(size=4))
    given = []

    @METHODS.register('seven')
    def seven(job):
        network = job.supernet()
        given.append((network, job))
        with torch.no_grad():
            network.norm.running_mean.fill_(7)
            network.head.weight.fill_(7)
        return Found(network)

    def make(pretrain=None, amp=False, **row):
        experiment = Experiment(
            Net, [Row('a', 'seven', **row)],
            budgets=[.9],
            pretrain=pretrain,
            train=Recipe(steps=1, batch=20, lr=0., schedule='constant'))
        made = Bench(experiment, images, Store(tmp_path), Machine(amp=amp))
        made.given = given
        return made

    yield make
    del METHODS['seven']


RUN = Run('a', '90%', 3)


def test_statistics_are_those_of_the_images(bench):
    made = bench(after='none')
    made.run(RUN)
    mean = made.images.normal(made.images.train[0]).mean((0, 2, 3))
    torch.testing.assert_close(made.given[0][0].norm.running_mean, mean)
    made = bench(after='none', recalibrate=False)
    made.run(RUN)
    assert (made.given[-1][0].norm.running_mean == 7).all()


@pytest.mark.parametrize('after, kept', [('scratch', False),
                                         ('finetune', True), ('none', True)])
def test_weights_are_new_or_kept(bench, after, kept):
    made = bench(after=after)
    record = made.run(RUN)
    weight = made.given[0][0].head.weight
    assert bool((weight == 7).all()) == kept
    assert record['train_images'] == (0 if after == 'none' else 20)
    assert ('top1_before_training' in record) == (after == 'finetune')
    assert record['macs'] == 6 and record['amount'] == 5
    assert record['share_of_budget'] == pytest.approx(6 / 5.4, abs=1e-4)
    assert record['share_of_supernet'] == 1


class Wider(Net):
    """The same with two layers more."""

    def __init__(self, classes):
        super().__init__(classes)
        self.head = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, classes))
        self.head.weight = self.head[0].weight


def test_a_row_has_a_supernet_of_its_own(bench):
    made = bench(after='none', supernet=Wider)
    assert made.settings(made.experiment.rows[0])['budget_of'] == 'Net'
    plain_row = bench(after='none').experiment.rows[0]
    record = made.run(RUN)
    assert record['macs'] == 15 + 10 and record['amount'] == 5
    assert record['share_of_supernet'] == 1
    assert isinstance(made.given[0][0], Wider)
    row = made.experiment.rows[0]
    assert made.settings(row)['network'] == 'Wider'
    assert made.settings(plain_row)['network'] == 'Net'


def test_a_pretrained_supernet_is_kept_once_a_seed(bench):
    recipe = Recipe(steps=2, batch=20, lr=.5, schedule='constant')
    made = bench(pretrain=recipe, after='none')
    torch.manual_seed(3)
    fresh = Net(2).head.bias.detach()
    made.run(RUN)
    assert not torch.equal(made.given[0][0].head.bias, fresh)
    made.run(RUN)
    assert torch.equal(made.given[0][0].head.bias, made.given[1][0].head.bias)
    made.run(Run('a', '90%', 4))
    bench(pretrain=recipe, amp=True, after='none').run(RUN)
    assert len(list((made.store.folder / 'supernets').iterdir())) == 3
    other = bench(pretrain=recipe, pretrained=False, after='none')
    other.run(RUN)
    assert torch.equal(other.given[-1][0].head.bias, fresh)


def test_settings_are_what_the_figures_depend_on(bench):
    base = bench(after='none').settings(bench().experiment.rows[0])
    row = bench(after='scratch').experiment.rows[0]
    settings = bench(after='scratch').settings(row)
    assert settings['data']['train'] == 40 and settings['train']['steps'] == 1
    assert bench(amp=True).settings(row) != settings
    assert base == settings  # the row that is given, not the bench's
    hand = Row('b', 'network', network=partial(Net, 2))
    assert not {'search', 'pretrain'} & set(bench().settings(hand))
    assert 'train' not in bench().settings(Row('c', after='none'))


def test_a_default_of_the_search_is_a_setting(bench, monkeypatch):
    row, made = Row('d', 'dms'), bench()
    before = made.settings(row)
    monkeypatch.setattr(runs, 'HARDEN', .5)
    assert made.settings(row) != before
    assert 'defaults' not in made.settings(Row('u', 'uniform'))


def test_a_method_that_nobody_knows(bench):
    made = bench()
    made.experiment.rows[0].__dict__['method'] = 'eight'
    with pytest.raises(ExperimentError, match="row \"a\" is 'eight': choose"):
        made.plan([0])


def test_plan_goes_seed_by_seed(bench):
    assert bench().plan([4, 2]) == [Run('a', '90%', 4), Run('a', '90%', 2)]
    assert Run('a b', '90%', 4).name == 'a_b__90pct__s4'


def test_versions_name_what_was_run(monkeypatch):
    assert versions()['torch'] == torch.__version__
    asked = []
    monkeypatch.setattr(runs, '_git',
                        lambda *words: asked.append(words) or 'abc')
    assert versions()['commit'] == 'abc+changes'
    assert all(words[-2:] == ('.', ':(top)tools/compare') for words in asked)


def test_rows_that_differ_in_what_follows_share_a_search(bench):
    """And those that search otherwise do not."""

    def made(**row):
        job = bench(**row).job(RUN)
        return job.once('searches/a', lambda: dict(value=row['after']))

    assert made(after='none')['value'] == 'none'
    assert made(after='scratch', recalibrate=False)['value'] == 'none'
    assert made(after='scratch', search=dict(lr=1.))['value'] == 'scratch'


def test_what_is_found_is_looked_up(bench, tmp_path):
    table = tmp_path / 'table.json'
    table.write_text('5')

    def judge(record, path):
        return dict(right=record['macs'] + float(path.read_text()))

    made = bench(after='none')
    experiment = replace(made.experiment, judge=judge)
    judged = Bench(experiment, made.images, made.store, made.machine, table)
    assert judged.run(RUN)['judged'] == dict(right=11)
    assert 'judged' not in made.run(RUN)
    for found, path, message in ((experiment, None, '--judge FILE'),
                                 (made.experiment, table, 'has no judge'),
                                 (experiment, tmp_path / 'x', 'no file')):
        with pytest.raises(ExperimentError, match=message):
            Bench(found, made.images, made.store, made.machine, path)


class Wide(nn.Module):
    """Something to prune: two layers and a block that can go."""

    def __init__(self, classes):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24)
        self.blocks = nn.Sequential(*[Branch(24) for _ in range(2)])
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        return self.head(
            self.blocks(self.norm(self.stem(x)).relu()).mean((2, 3)))


class Branch(nn.Module):
    """A residual block."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width,
                                         1), nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm(self.conv(x))


@pytest.mark.parametrize(
    'method', sorted({*METHODS.keys()} - {'network', 'torch_pruning'}))
def test_every_method_fills_the_budget(method, tmp_path):
    """Those of other packages, and given networks, have tests of their own."""
    pixels = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8)
    images = Images('x', (pixels, torch.arange(40) % 2),
                    (pixels, torch.arange(40) % 2), 2, Data(size=4))
    recipe = Recipe(steps=4, batch=20, lr=.1, schedule='constant')
    evolution = dict(
        population=4, generations=1, batches=1, statistics=1, least=.8)
    options = evolution if method == 'evolution' else {}
    experiment = Experiment(
        Wide, [Row('a', method, options=options, after='none')],
        budgets=['60%'],
        search=recipe,
        train=recipe)
    record = Bench(experiment, images, Store(tmp_path),
                   Machine()).run(Run('a', '60%', 0))
    assert .9 < record['share_of_budget'] <= 1
    assert sum(record['layers'].values()) < 24 + 2 * 24 + 2
