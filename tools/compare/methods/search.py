# Copyright (c) dms_razor contributors. All rights reserved.
"""The search of this package, and a network that was made by hand."""
from typing import Any, Dict, List, Optional, Tuple

from torch import Tensor, nn

from dms_razor import Search
from tools.compare.methods.job import METHODS, Found, Job, amounts
from tools.compare.training import Clock, train

#: Points of a search that its trace holds, about.
POINTS = 20
#: Values of one unit's masks that a point holds, at most.
MASKS = 32


@METHODS.register('network')
def network(job: Job) -> Found:
    """A network that was made by hand."""
    made = job.row.network(classes=job.images.classes)
    return Found(made.to(job.machine.device))


@METHODS.register('dms')
def dms(job: Job) -> Found:
    """A search of this package, with whatever arguments the row has.

    Options: none.
    """
    if job.row.one_search:
        return _from_one_search(job)
    supernet, clock = job.supernet(), Clock()
    with clock:
        search, trace, seen = run_search(job, supernet)
        found = job.exported(search, trace=trace, images=seen)
    found.clock, found.steps = clock, seen // job.recipe.batch
    return found


def run_search(
    job: Job,
    supernet: nn.Module,
    target: Optional[float] = None
) -> Tuple[Search, List[Dict[str, Any]], int]:
    """Search a supernet: the search, its trace and the images it saw."""
    recipe, number = job.recipe, len(job.images.train[1])
    narrow = job.row.width_only_epochs
    if narrow is None:
        narrow = job.experiment.width_only_epochs
    steps = recipe.length(number)
    extra = round(narrow * recipe.epoch(number)) if narrow else 0
    search = job.search(
        supernet,
        target=float(target or job.amount),
        total_steps=steps,
        width_only_steps=extra)
    trace: List[Dict[str, Any]] = []
    every = max(1, (steps + extra) // POINTS)

    def watch(step: int, task: Tensor) -> None:
        if step % every == 0 or step == steps + extra - 1:
            trace.append(point(search, step, float(task.detach())))

    seen = train(
        supernet,
        job.images,
        recipe,
        job.search_data,
        job.machine,
        f'{job.what} search',
        steps=steps + extra,
        search=search,
        watch=watch)
    return search, trace, seen


def point(search: Search, step: int, task: float) -> Dict[str, Any]:
    """Where a search stands, as results.json has it.

    ``ratios`` and ``kept`` are in the order of its units; ``masks`` are those
    of the first widest unit, ascending.
    """
    structure = search.structure()
    layout = search.space.layout
    widest = max(range(layout.U), key=lambda unit: layout.units[unit].size)
    masks = search.bank.current[layout.slice_of(widest)].detach().sort()[0]
    return dict(
        step=step,
        loss=round(task, 4),
        target=round(search.current_target),
        soft=round(search.current()),
        hard=round(search.current(hard=True)),
        ratios=[round(unit['ratio'], 4) for unit in structure],
        kept=[unit['kept'] for unit in structure],
        widest=structure[widest]['name'],
        masks=[round(m, 3) for m in masks[::-(-len(masks) // MASKS)].tolist()])


def _from_one_search(job: Job) -> Found:
    """Export this budget from the search that all budgets share.

    So do rows that differ only in what follows the search. It goes to the
    smallest budget; ``options=dict(target=...)`` is another.
    """
    least = min(amounts(job.experiment, job.images).values())
    least = job.row.options.get('target', least)

    def make() -> Dict[str, Any]:
        supernet, clock = job.supernet(), Clock()
        with clock:
            search, trace, seen = run_search(job, supernet, least)
        return dict(
            weights=search.model.state_dict(),
            search=search.state_dict(),
            trace=trace,
            seen=seen,
            clock=vars(clock))

    made = job.once('searches/search', make)
    supernet = job.supernet()
    search = job.search(supernet, target=float(least))
    supernet.load_state_dict(made['weights'])
    search.load_state_dict(made['search'], with_changes=True)
    found = job.exported(search, trace=made['trace'], images=made['seen'])
    found.clock = Clock(**made['clock'])
    found.steps = made['seen'] // job.recipe.batch
    return found
