# Copyright (c) dms_razor contributors. All rights reserved.
"""Evolution over the space of a search, with one supernet's weights."""
from dms_razor import Search
from dms_razor.baselines import evolve, narrow
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
    from (4), and those of :func:`dms_razor.baselines.evolve`: ``population``
    (20), ``generations`` (10), ``mutation``.
    """
    options = dict(population=20, generations=10, seed=job.seed)
    options.update(job.row.options)
    scored, taken = options.pop('batches', 4), options.pop('statistics', 4)
    supernet, clock, seen = job.supernet(), Clock(), 0
    with clock:
        if job.experiment.pretrain is None or not job.row.pretrained:
            seen = train(supernet, job.images, job.recipe, job.search_data,
                         job.machine, f'{job.what} supernet')
        batches = job.batches(scored + taken)

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

        search = job.search(supernet)
        # A count keeps the elements with the largest weights.
        narrow(search, 'l1', depth=True)
        made = evolve(search, evaluate, **options)
        found = job.exported(search)
    found.clock, found.steps = clock, made.evaluations
    found.images = seen + made.evaluations * sum(
        len(labels) for _, labels in batches)
    return found
