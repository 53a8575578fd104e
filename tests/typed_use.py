# Copyright (c) dms_razor contributors. All rights reserved.
"""What users write, for mypy in its strict mode; it is read and never run.

Each name of docs/en/api/index.md that a loop calls is used, and the type that
a checker finds for it is asserted: a name that became ``Any`` is an error.
"""
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from torch import Tensor, nn, optim
from typing_extensions import assert_type

import dms_razor
from dms_razor import Search
from dms_razor.baselines import Evolution, evolve, narrow
from dms_razor.core.decision import Decision
from dms_razor.preflight import Preflight
from dms_razor.space import Space
from dms_razor.subnet import (Count, Export, Manifest, Report, build_subnet,
                              count_macs, count_params, export_subnet,
                              load_weights, recalibrate, sweep, write_portable)
from dms_razor.subnet.sweeps import Sweep
from dms_razor.trace import trace
from dms_razor.watch import Status


def a_search(model: nn.Module, images: Tensor, optimizer: optim.SGD) -> None:
    search = Search(model, images, target='50%', total_steps=900)
    assert_type(search, Search)
    assert_type(search.attach(optimizer), Search)
    assert_type(search.loss(images.mean()), Tensor)
    assert_type(search.step(), bool)
    assert_type(search.preflight(), Preflight)
    assert_type(search.preflight().text(), str)
    assert_type(search.decision(), Decision)
    assert_type(search.status(), Status)
    assert_type(search.structure(), List[Dict[str, Any]])
    assert_type(search.state_dict(), Dict[str, Any])
    search.load_state_dict(search.state_dict(), with_changes=True)
    assert_type(search.target, float)
    assert_type(search.step_count, int)
    assert_type(search.attached, bool)
    assert_type(search.current(hard=True), float)
    assert_type(search.soft_and_hard(lambda: 1.), Tuple[float, float])
    assert_type(search.space, Space)
    with search.masks('subnet'):
        model(images)
    search.on_step(lambda search: print(search.step_count))
    search.show_progress()
    search.log_to(print, every=5)
    assert_type(search.close(), nn.Module)
    assert_type(trace(model, images), Space)


def an_export(search: Search, data: List[Tensor]) -> None:
    export = search.export('subnet', bn_data=data, bn_batches=20)
    assert_type(export, Export)
    assert_type(export.model, nn.Module)
    assert_type(export.path, Path)
    assert_type(export.manifest, Manifest)
    assert_type(export.report, Report)
    assert_type(export.onnx(), Path)
    assert_type(export.torchscript('a.pt'), Path)
    model = build_subnet(nn.Linear(1, 1), 'subnet.json', Path('subnet.pth'))
    assert_type(model, nn.Module)
    load_weights(model, 'subnet.pth')
    assert_type(recalibrate(model, data), int)
    assert_type(count_macs(model, data[0]), Count)
    assert_type(count_params(model), int)
    assert_type(write_portable(model, data[0], 'a.onnx'), Path)
    assert_type(
        export_subnet('folder', model, search.space, search.keep()), Export)
    score: Callable[[Export], Dict[str, float]] = lambda export: {'top-1': 1.}
    assert_type(sweep(search, 'folder', ['75%', '50%'], score), Sweep)


def without_a_search(search: Search) -> None:
    assert_type(narrow(search, 'l1'), Tensor)
    assert_type(evolve(search, lambda search: 1.), Evolution)
    assert_type(dms_razor.__version__, str)
