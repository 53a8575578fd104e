# Copyright (c) dms_razor contributors. All rights reserved.
"""What the quickstarts and benchmarks share."""
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Iterator

import torch

from dms_razor.core.projection import project
from dms_razor.search import Search
from dms_razor.subnet import Export, export_subnet


def say(text: str = '', indent: int = 0) -> None:
    """Print at once, also into a pipe."""
    pad = ' ' * indent
    print('\n'.join(pad + line for line in text.split('\n')), flush=True)


@contextmanager
def logged(work_dir: Path) -> Iterator[None]:
    """What is printed goes to a file: mmengine prints whole configs."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / 'console.log', 'w', encoding='utf-8') as log:
        with redirect_stdout(log), redirect_stderr(log):
            yield


def narrow_uniformly(search: Search, out_dir: Path) -> Export:
    """Export the supernet with all its blocks and evenly fewer channels.

    All width ratios are equal, so the projection onto the budget, a common
    shift of the ratios, gives every layer the same share of its channels.
    """
    layout = search.space.layout
    kept = project(
        layout,
        search.resource,
        torch.zeros_like(search.bank.ratios),
        search.metric,
        search.target,
        ranks=search.bank.ranks,
        depth_kept=layout.size)
    return export_subnet(
        out_dir,
        search.model,
        search.space,
        search.keep(kept),
        target=search.target,
        metric=search.metric)
