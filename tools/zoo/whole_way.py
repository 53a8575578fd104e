# Copyright (c) dms_razor contributors. All rights reserved.
"""One network of another package, the whole way, and what that showed.

Traced, exported with random ratios, compared masked against pruned in eval and
in train mode, its MACs counted by PyTorch's own counter, searched for a step;
:mod:`.again` then builds the export in another process.
"""
import copy
import linecache
import math
import time
import traceback
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import dms_razor
from dms_razor import Search
from dms_razor.core.layout import Unit
from dms_razor.masking import attach, unmask
from dms_razor.network import (as_arguments, call, map_tensors, run_model,
                               tensors_of, untouched)
from dms_razor.preflight import preflight
from dms_razor.proof.compare import (TOLERANCES, Tolerance, compare, evidence,
                                     numbers_of)
from dms_razor.proof.noise import EqualNoise
from dms_razor.proof.precision import (double_network, double_precision,
                                       to_double)
from dms_razor.space import Space
from dms_razor.subnet import export_subnet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace
from dms_razor.tracing.modes import as_trained
from .case import Case, NotCovered
from .check import randomise, removable_shares
from .record import BOUNDS, Record

OURS = str(Path(dms_razor.__file__).parent)
SAMPLES = 4
DRAWS = 10


class Wrong(Exception):
    """Something differs and nobody has said so."""


def prove(record: Record, case: Case, folder: Path) -> None:
    """Fill in the record of a network; writes what :mod:`.again` reads.

    Args:
        record (Record): Of this network.
        case (Case): The network.
        folder (Path): For the export and the outputs that it gives.
    """
    model = case.model.eval()
    record.params = sum(p.numel() for p in model.parameters())
    try:
        with _stage(record, 'build'):
            _usable_weights(model, case)
        with _stage(record, 'trace'):
            space = trace(model, **case.tracing())
        _describe(record, model, space)
        with _stage(record, 'eval'):
            selection = _compare_eval(record, case, space)
        with _stage(record, 'macs'):
            _count(record, case, space, selection)
        with _stage(record, 'train'):
            _compare_train(record, case, space, selection)
        with _stage(record, 'export'):
            _export(case, space, selection, folder)
        with _stage(record, 'search'):
            _search(case, space)
        record.status = 'equal'
    except Exception as error:
        record.status, record.problem = _judge(record, error)


@contextmanager
def _stage(record: Record, name: str) -> Iterator[None]:
    record.stage, start = name, time.process_time()
    record.save()
    try:
        yield
    finally:
        record.seconds[name] = round(time.process_time() - start, 2)


def _judge(record: Record, error: Exception) -> Tuple[str, str]:
    """Status and description of an error."""
    text = f'{type(error).__name__}: {error}'.strip()
    if isinstance(error, NotCovered):
        return 'not covered', str(error)
    if isinstance(error, Wrong):
        return 'wrong', str(error)
    if record.stage == 'build':
        return 'not built', text[:1000]
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = last.filename.startswith(OURS) and linecache.getline(
        last.filename, last.lineno or 0).strip().startswith('raise ')
    where = '; '.join(f'{Path(f.filename).name}:{f.lineno} {f.name}'
                      for f in traceback.extract_tb(error.__traceback__)[-6:])
    if said:
        return ('refused' if record.stage == 'trace' else 'late'), text[:2000]
    return 'foreign', f'{text[:1500]} [{where}]'


def _usable_weights(model: nn.Module, case: Case) -> None:
    """Random weights, where the network stays finite with them.

    Else its own, a quarter off at most: zeros hide what is behind them.
    """
    before = copy.deepcopy(model.state_dict())
    randomise(model)
    if _finite(_outputs(model, case, case.batch(2, 3))):
        return
    model.load_state_dict(before)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.rand(parameter.shape, generator=generator)
            parameter.mul_(.75 + .5 * noise).add_(.02 * noise)
    if not _finite(_outputs(model, case, case.batch(2, 3))):
        raise ValueError('the network returns nothing finite')


def _finite(outputs: List[Tensor]) -> bool:
    return any(t.is_floating_point() for t in outputs) and all(
        bool(t.isfinite().all()) for t in outputs)


def _outputs(model: nn.Module,
             case: Case,
             batch: Any,
             train: bool = False,
             double: bool = False) -> List[Tensor]:
    """What a network returns, in either mode; nothing of it is changed."""
    forward = case.forward
    if train:
        forward = case.train_forward or case.forward
    arguments, run = as_arguments(batch, forward or run_model)
    mode, noise = (as_trained, EqualNoise()) if train else (untouched,
                                                            nullcontext())
    with mode(model), noise, double_precision() if double else nullcontext():
        return numbers_of(run(model, *arguments))


def _masked(model: nn.Module, space: Space, selection: Tensor,
            run: Callable) -> List[Tensor]:
    """Outputs of the supernet under hard masks."""
    masks = selection.to(next(p for p in model.parameters()))
    attach(model, space, lambda: masks)
    try:
        return run(model)
    finally:
        unmask(model)


def _describe(record: Record, model: nn.Module, space: Space) -> None:
    record.units = dict(Counter(unit.kind for unit in space.units))
    record.elements, record.train = space.layout.E, space.training
    record.proof = space.proof.text() if space.proof else ''
    vars(record).update(removable_shares(model, space))
    record.outside = parameters_outside(model, space)


def parameters_outside(model: nn.Module,
                       space: Space) -> List[Tuple[str, int, List[str]]]:
    """Why parameters are in no unit: reason, parameters, modules.

    A parameter of which a part can go counts with what cannot.
    """
    reasons = {stay.module: stay.reason for stay in space.full_width}
    blocks = tuple(block.path + '.' for block in space.blocks)
    found: dict = {}
    for name, parameter in model.named_parameters():
        if name.startswith(blocks):
            continue
        stays = parameter.numel() * math.prod(
            float((site.index < 0
                   ).view(len(site.index), -1).all(1).double().mean())
            for site in space.slice_sites.get(name, ()))
        path = name.rpartition('.')[0]
        place = path
        while place and place not in reasons:
            place = place.rpartition('.')[0]
        reason = reasons.get(place, 'no reason is given')
        if stays:
            number, modules = found.setdefault(reason, [0, []])
            found[reason][0] = number + round(stays)
            modules.append(path)
    return sorted(((reason, number, list(dict.fromkeys(modules))[:6])
                   for reason, (number, modules) in found.items()),
                  key=lambda item: -item[1])


def draw(space: Space, seed: int) -> Tensor:
    """A subnet of random counts, each unit's drawn alone, bool ``[E]``."""
    generator = torch.Generator().manual_seed(seed)

    def kept(unit: Unit) -> int:
        allowed = list(unit.allowed)
        return allowed[int(
            torch.randint(len(allowed), (), generator=generator))]

    return space.draw(kept, generator)


def _compare_eval(record: Record, case: Case, space: Space) -> Tensor:
    """Masked against pruned in eval mode; returns the subnet that is kept."""
    model, double = _in_double(case)
    record.precision = 'float64' if double else 'float32'
    record.eval_error, first = 0., None
    for number in range(DRAWS):
        selection = draw(space, number)
        if not _tells(model, case, space, selection, double):
            continue
        error = _difference(model, case, space, selection, double=double)
        record.eval_error = max(record.eval_error, error)
        if first is not None:
            break
        first = selection
    if first is None:
        raise ValueError('no subnet drawn depends on its input')
    if record.eval_error > BOUNDS[record.precision]:
        raise Wrong('masked supernet and subnet differ by '
                    f'{record.eval_error:.1e} in eval mode')
    return first


def _compare_train(record: Record, case: Case, space: Space,
                   selection: Tensor) -> None:
    """The same in train mode; random numbers are drawn alike."""
    model, double = _in_double(case, train=True)
    record.train_precision = 'float64' if double else 'float32'
    said = record.train.startswith('it ')
    try:
        record.train_error = _difference(
            model, case, space, selection, train=True, double=double)
    except Exception as error:
        if said:
            return
        raise Wrong(
            f'train mode fails ({type(error).__name__}: {error})') from error
    if not record.train_error < BOUNDS[record.train_precision] and not said:
        raise Wrong('masked supernet and subnet differ by '
                    f'{record.train_error:.1e} in train mode')


def _batch(case: Case, train: bool, seed: int) -> Any:
    draw = case.train_batch or case.batch if train else case.batch
    return draw(SAMPLES, seed)


def _in_double(case: Case, train: bool = False) -> Tuple[nn.Module, bool]:
    """A copy in float64, if the network can compute in it."""
    model = copy.deepcopy(case.model)
    batch = _batch(case, train, 7)
    try:
        double = double_network(copy.deepcopy(model))
        _outputs(double, case, map_tensors(to_double, batch), train, True)
        return double, True
    except Exception:
        _outputs(model, case, batch, train)  # the network itself must run
        return model, False


def _tells(model: nn.Module, case: Case, space: Space, selection: Tensor,
           double: bool) -> bool:
    """Whether the outputs of a subnet depend on the input."""
    first, second = (
        _masked(
            model, space, selection, lambda m: _outputs(
                m, case, _inputs(case, False, seed, double), double=double))
        for seed in (7, 8))
    return any(evidence(first, second))


def _inputs(case: Case, train: bool, seed: int, double: bool) -> Any:
    batch = _batch(case, train, seed)
    return map_tensors(to_double, batch) if double else batch


def _difference(model: nn.Module,
                case: Case,
                space: Space,
                selection: Tensor,
                train: bool = False,
                double: bool = True) -> float:
    batch = _inputs(case, train, 7, double)

    def run(network: nn.Module) -> List[Tensor]:
        return _outputs(network, case, batch, train, double)

    expected = _masked(model, space, selection, run)
    if not _finite(expected):
        raise ValueError('the masked supernet returns nothing finite')
    found = run(slice_model(model, space, selection))
    least = TOLERANCES[torch.float64 if double else torch.float32].least
    return compare(expected, found, Tolerance(float('inf'), least))[0]


def _count(record: Record, case: Case, space: Space,
           selection: Tensor) -> None:
    """The closed form against PyTorch's counter, which knows neither fused
    attention of the CPU nor fused recurrent layers: both are off."""
    whole = torch.ones_like(selection)
    for name, chosen in (('supernet', whole), ('subnet', selection)):
        network = slice_model(case.model, space, chosen)
        network.requires_grad_(False)  # else it looks for graphs
        counter = FlopCounterMode(display=False)
        with untouched(network), sdpa_kernel(SDPBackend.MATH), \
                torch.backends.mkldnn.flags(enabled=False), counter:
            call(network, case.batch(1, 0), case.forward)
        record.macs[name] = [
            int(space.cost(chosen, 'macs')),
            counter.get_total_flops() // 2
        ]
    if any(a != b for a, b in record.macs.values()):
        raise Wrong('MACs by the closed form and as counted: ' +
                    ', '.join(f'{k} {a:,} and {b:,}'
                              for k, (a, b) in record.macs.items()))


def _export(case: Case, space: Space, selection: Tensor, folder: Path) -> None:
    """The folder of a subnet, and what it returns."""
    export = export_subnet(
        folder / 'subnet',
        case.model,
        space,
        selection,
        forward=case.forward,
        picture=False)
    outputs = _outputs(export.model, case, _batch(case, False, 9))
    torch.save([t.detach() for t in outputs], folder / 'outputs.pt')


def _search(case: Case, space: Space) -> None:
    """One step of a search moves weights and leaves them finite."""
    model = case.model
    search = Search(
        model,
        space=space,
        target=_target(space),
        total_steps=4,
        forward=case.forward)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    search.attach(optimizer)
    arguments, run = as_arguments(
        _batch(case, True, 11), case.train_forward or case.forward
        or run_model)
    outputs = [
        t for t in tensors_of(run(model, *arguments))
        if t.is_floating_point() and t.requires_grad
    ]
    task = sum(t.float().square().mean() for t in outputs)
    search.loss(task).backward()
    optimizer.step()
    search.close()
    if not _finite([p.detach() for p in model.parameters()]):
        raise Wrong('a step of the search leaves weights that are not finite')


def _target(space: Space) -> float:
    """A budget in reach, a share: half way to the smallest subnet."""
    report = preflight(space)
    whole = report.supernet['macs']
    return (whole + report.minimum['macs']) / 2 / whole
