# Copyright (c) dms_razor contributors. All rights reserved.
"""Evolution over the space of a search, with one supernet's weights."""
import random
from typing import Callable, List

from torch import nn

from dms_razor import Search
from dms_razor.baselines import evolve, narrow
from dms_razor.baselines.evolution import CountsInBudget
from dms_razor.subnet import recalibrate
from tools.compare.methods.job import METHODS, Found, Job
from tools.compare.training import Clock, train


@METHODS.register('evolution')
def evolution(job: Job) -> Found:
    """The best of some generations, each network scored as it stands.

    A supernet that was not pretrained is trained first, by the row's recipe;
    that belongs to the cost of the search. A score is the accuracy under hard
    masks on training images that are not augmented, after the BatchNorm
    statistics were taken from others of them: test images decide nothing.

    Options: ``batches`` to score on (4), ``statistics``, batches to take them
    from (4), ``one_shot``, whether every other step of the supernet trains a
    random network of the budget (as in SPOS and OFA, where a network works
    as it is cut; False), and those of :func:`dms_razor.baselines.evolve`:
    ``population`` (20), ``generations`` (10), ``mutation``.
    """
    options = dict(population=20, generations=10, seed=job.seed)
    options.update(job.row.options)
    scored, taken = options.pop('batches', 4), options.pop('statistics', 4)
    one_shot = options.pop('one_shot', False)
    supernet, clock, seen = job.supernet(), Clock(), 0
    with clock:
        if one_shot:
            search = job.search(supernet)
            # Which elements a count keeps is drawn once, by the new weights.
            narrow(search, 'l1', depth=True)
            seen = _train_subnets(job, supernet, search)
        else:
            if job.experiment.pretrain is None or not job.row.pretrained:
                seen = train(supernet, job.images, job.recipe, job.search_data,
                             job.machine, f'{job.what} supernet')
            search = job.search(supernet)
            # A count keeps the elements with the largest weights.
            narrow(search, 'l1', depth=True)
        batches = job.batches(scored + taken)
        made = evolve(search, _accuracy(job, batches, scored), **options)
        found = job.exported(search)
    found.clock, found.steps = clock, made.evaluations
    found.images = seen + made.evaluations * sum(
        len(labels) for _, labels in batches)
    return found


def _train_subnets(job: Job, supernet: nn.Module, search: Search) -> int:
    """Train the whole network and random ones of the budget in turn."""
    space, draw = CountsInBudget(search), random.Random(job.seed)
    whole = space.layout.most.clone()

    def other(step: int, *_: object) -> None:
        kept = whole if step % 2 else None
        while kept is None:
            kept = space.fit(space.sample(draw))
        search.bank.set_kept(kept)

    search.bank.set_kept(whole)
    with search.masks('hard'):
        return train(
            supernet,
            job.images,
            job.recipe,
            job.search_data,
            job.machine,
            f'{job.what} supernet',
            watch=other)


def _accuracy(job: Job, batches: List, scored: int) -> Callable:
    """A candidate's score: right answers on the first of the batches."""

    def evaluate(search: Search) -> float:
        model = search.model
        recalibrate(model, batches[scored:])
        model.eval()
        with job.machine.autocast():
            right = [
                float((model(images).argmax(1) == labels).sum())
                for images, labels in batches[:scored]
            ]
        return sum(right)

    return evaluate
