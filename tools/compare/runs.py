# Copyright (c) dms_razor contributors. All rights reserved.
"""One run: a row at a budget with a seed, from the supernet to its figures."""
import datetime
import hashlib
import json
import platform
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy
import torch
from torch import nn

import dms_razor
from dms_razor.core.budget import FALL, HARDEN
from dms_razor.subnet import recalibrate
from tools.compare.data import Images
from tools.compare.experiment import (Experiment, ExperimentError, Recipe, Row,
                                      one_of, plain, slug)
from tools.compare.methods import METHODS, Found, Job
from tools.compare.methods.job import amounts, cost, cost_of, layers, params
from tools.compare.store import Store
from tools.compare.training import Clock, Machine, evaluate, new_weights, train

#: Added to a run's seed for the batches of its pretraining.
PRETRAIN_DATA = 2000


@dataclass(frozen=True)
class Run:
    """A row at a budget with a seed."""
    row: str
    budget: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f'{slug(self.row)}__{slug(self.budget)}__s{self.seed}'


class Bench:
    """An experiment with its images and its folder: makes runs.

    Args:
        experiment (Experiment): What is compared.
        images (Images): The data.
        store (Store): Where things are written.
        machine (Machine): How networks are run.
        judge (Path, optional): The file of the experiment's judge.

    Raises:
        ExperimentError: There is a judge without a file, or the other way.
    """

    def __init__(self,
                 experiment: Experiment,
                 images: Images,
                 store: Store,
                 machine: Machine,
                 judge: Optional[Path] = None) -> None:
        self.experiment, self.images = experiment, images.to(machine.device)
        self.store, self.machine, self.judge = store, machine, judge
        if experiment.judge is not None and judge is None:
            raise ExperimentError('what is found is looked up in a table: '
                                  'name its file, --judge FILE')
        if experiment.judge is None and judge is not None:
            raise ExperimentError('--judge is for experiments that look '
                                  'figures up; this one has no judge')
        if judge is not None and not judge.is_file():
            raise ExperimentError(f'there is no file {judge}')

    @cached_property
    def amounts(self) -> Dict[str, float]:
        """Budgets in units of the metric."""
        return amounts(self.experiment, self.images)

    def plan(self, seeds: List[int], rows: List[str] = ()) -> List[Run]:
        """All runs, seed by seed, so that what is there is comparable.

        Raises:
            ExperimentError: A row or its method is not known.
        """
        chosen = [self.experiment.row(name) for name in rows]
        chosen = chosen or self.experiment.rows
        for row in chosen:
            one_of(f'the method of row "{row.name}"', row.method,
                   list(METHODS))
        return [
            Run(row.name, label, seed) for seed in seeds
            for label in self.experiment.labelled for row in chosen
            if row.budgets is None or label in row.budgets
        ]

    def settings(self, row: Row) -> Dict[str, Any]:
        """Everything that a row's figures depend on, seed and budget aside."""
        experiment, images = self.experiment, self.images
        found = dict(
            network=experiment.supernet(row),
            init=experiment.init,
            metric=experiment.metric,
            row={
                name: getattr(row, name)
                for name in ('method', 'network', 'search', 'options', 'after',
                             'recalibrate', 'one_search')
            },
            search=row.recipe or experiment.search,
            width_only_epochs=experiment.width_only_epochs
            if row.width_only_epochs is None else row.width_only_epochs,
            train=row.train or experiment.train,
            pretrain=experiment.pretrain if row.pretrained else None,
            data=dict(
                source=images.name,
                train=len(images.train[1]),
                test=len(images.test[1]),
                settings=images.settings),
            amp=self.machine.amp)
        if self.machine.device != 'cpu':
            found['device'] = self.machine.device
        if row.supernet is not None:
            # Budgets that are shares are shares of this one.
            found['budget_of'] = experiment.network
        if row.method == 'dms':
            # A default that changes makes another search.
            found['defaults'] = dict(fall=FALL, harden=HARDEN)
        if row.one_search:
            found['budgets'] = list(experiment.labelled)
        # What a row does not use may change without making it again.
        if row.method == 'network':
            for name in ('search', 'width_only_epochs', 'pretrain'):
                del found[name]
        if row.after == 'none':
            del found['train']
        return plain(found)

    def job(self, run: Run) -> Job:
        """What the method of a run is given."""
        row = self.experiment.row(run.row)
        settings = self.settings(row)
        # What follows a search makes no other search.
        settings['row'] = {
            name: value
            for name, value in settings['row'].items()
            if name not in ('after', 'recalibrate')
        }
        settings.pop('train', None)
        key = _key(settings)

        def once(name: str, make: Callable) -> Dict[str, Any]:
            return self.store.made_once(f'{slug_path(name)}-s{run.seed}-{key}',
                                        make)

        return Job(
            self.experiment,
            row,
            self.images,
            self.machine,
            run.budget,
            self.amounts[run.budget],
            run.seed,
            folder=self.store.folder / 'subnets' / run.name,
            supernet=lambda: self.supernet(row, run.seed),
            once=once)

    def supernet(self, row: Row, seed: int) -> nn.Module:
        """The supernet of a row; a pretrained one is made once a seed.

        Raises:
            Busy: Another process is pretraining it.
        """
        torch.manual_seed(seed)
        # Made on the CPU, so that a seed gives the same weights everywhere.
        network = self.experiment.supernet(row)(classes=self.images.classes)
        network.to(self.machine.device)
        recipe = self.experiment.pretrain
        if recipe is None or not row.pretrained:
            return network
        settings = {
            key: self.settings(row)[key]
            for key in ('network', 'pretrain', 'data', 'amp', 'device')
            if key in self.settings(row)
        }
        made = self.store.made_once(
            f'supernets/s{seed}-{_key(settings)}',
            lambda: self._pretrained(network, recipe, seed))
        network.load_state_dict(made['weights'])
        return network

    def _pretrained(self, network: nn.Module, recipe: Recipe,
                    seed: int) -> Dict[str, Any]:
        what = f'supernet seed {seed}: pretraining'
        clock = Clock()
        with clock:
            train(network, self.images, recipe, PRETRAIN_DATA + seed,
                  self.machine, what)
        top1, loss = evaluate(network, self.images, self.machine)
        print(f'{what}: top-1 {top1:.2f} %', flush=True)
        return dict(
            weights=network.state_dict(),
            top1=top1,
            loss=loss,
            clock=vars(clock))

    def run(self, run: Run) -> Dict[str, Any]:
        """Make a run; see :mod:`tools.compare.results` for what is in it.

        Raises:
            Busy: Another process makes what it needs.
        """
        job = self.job(run)
        torch.manual_seed(run.seed)
        found = METHODS.find(job.row.method)(job)
        training, seen = Clock(), 0
        if job.row.after == 'scratch':
            new_weights(found.network, run.seed, self.experiment.init)
        elif job.recalibrates and not found.recalibrated:
            recalibrate(found.network, job.batches(20))
        before = None
        if job.row.after == 'finetune':
            before = evaluate(found.network, self.images, self.machine)[0]
        if job.row.after != 'none':
            with training:
                seen = train(found.network, self.images, job.row.train
                             or self.experiment.train, run.seed, self.machine,
                             f'{job.what} training')
        return self._figures(job, found, training, seen, before)

    def _figures(self, job: Job, found: Found, training: Clock, seen: int,
                 before) -> Dict[str, Any]:
        top1, loss = evaluate(found.network, self.images, self.machine)
        metric = self.experiment.metric
        spent = cost(found.network, self.images.example, metric)
        whole = cost_of(self.experiment.supernet(job.row), self.images, metric)
        record = dict(
            row=job.row.name,
            budget=job.label,
            seed=job.seed,
            top1=round(top1, 3),
            loss=round(loss, 5),
            macs=cost(found.network, self.images.example),
            params=params(found.network),
            amount=round(job.amount),
            share_of_budget=round(spent / job.amount, 4),
            share_of_supernet=round(spent / whole, 4),
            search_seconds=round(found.clock.wall, 1),
            search_cpu_seconds=round(found.clock.cpu, 1),
            search_steps=found.steps,
            search_images=found.images,
            train_seconds=round(training.wall, 1),
            train_cpu_seconds=round(training.cpu, 1),
            train_images=seen,
            structure=[{
                key: unit[key]
                for key in ('name', 'kind', 'kept', 'total')
            } for unit in found.structure],
            layers=layers(found.network),
            trace=found.trace,
            decision=found.decision,
            settings=self.settings(job.row),
            versions=versions(self.machine.device),
            threads=self.machine.threads,
            date=datetime.datetime.now().isoformat(timespec='seconds'))
        if before is not None:
            record['top1_before_training'] = round(before, 3)
        if self.judge is not None:
            record['judged'] = self.experiment.judge(record, self.judge)
        return record


def slug_path(name: str) -> str:
    """A path of slugs."""
    return '/'.join(slug(part) for part in name.split('/'))


def _key(settings: Dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha1(text.encode()).hexdigest()[:10]


def versions(device: str = 'cpu') -> Dict[str, str]:
    """What the figures were made with."""
    found = dict(
        dms_razor=dms_razor.__version__,
        torch=torch.__version__,
        numpy=numpy.__version__,
        python=platform.python_version())
    if torch.device(device).type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
    # Empty where the package is no part of a repository.
    parts = '.', ':(top)tools/compare'  # what searches, and what compares
    commit = _git('log', '-1', '--format=%h', '--', *parts)
    if commit:
        changed = _git('status', '--porcelain', '--', *parts)
        found['commit'] = commit + ('+changes' if changed else '')
    return found


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(['git', *arguments],
                              cwd=Path(dms_razor.__file__).parent,
                              capture_output=True,
                              text=True).stdout.strip()
    except OSError:  # git is not installed
        return ''
