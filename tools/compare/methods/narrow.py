# Copyright (c) dms_razor contributors. All rights reserved.
"""Structures without a search, on the same space and for the same budget."""
from functools import partial

from dms_razor import baselines
from dms_razor.core.projection import project
from tools.compare.methods.job import METHODS, Found, Job, task_loss
from tools.compare.training import Clock

#: Batches that a score is summed over, unless the row says otherwise.
BATCHES = 10


def narrow(method: str, job: Job) -> Found:
    """Narrow the supernet by a method of :mod:`dms_razor.baselines`.

    Options: ``scope`` ('local' or 'global'), ``batches``, a number, and
    whatever else ``dms_razor.baselines.narrow`` takes.
    """
    options = dict(job.row.options)
    number = options.pop('batches', BATCHES)
    supernet, clock = job.supernet(), Clock()
    scored = method == 'taylor'
    with clock:
        search = job.search(supernet)
        baselines.narrow(
            search,
            method,
            batches=job.batches(number) if scored else None,
            loss=task_loss if scored else None,
            seed=job.seed,
            **options)
        found = job.exported(search)
    search.close()
    found.clock = clock
    if scored:
        found.images = number * job.recipe.batch
    return found


@METHODS.register('resource_only')
def resource_only(job: Job) -> Found:
    """What the resource alone leads to: no image is seen.

    Options: none.
    """
    supernet, clock = job.supernet(), Clock()
    with clock:
        search = job.search(supernet)
        ratios = search.preflight().resource_only
        search.bank.set_kept(
            project(
                search.space.layout,
                search.resource,
                ratios,
                search.metric,
                search.target,
                ranks=search.bank.ranks))
        found = job.exported(search)
    search.close()
    found.clock = clock
    return found


for name in ('uniform', 'random', 'l1', 'taylor'):
    METHODS.register(name)(partial(narrow, name))
