# Copyright (c) dms_razor contributors. All rights reserved.
"""Export: from a supernet and what was kept of it to a folder of files.

| file | content |
| --- | --- |
| subnet.json | the manifest, see :mod:`dms_razor.subnet.manifest` |
| subnet.pth | the searched weights, tensors only |
| retrain.py | a config that trains the subnet, if a base was named |
| base.py | what retrain.py inherits, if its base was a local file |
| report.md, report.json | what was asked, searched and counted |
| report.html | the same to look at, in one file |
| structure.png | supernet and subnet, layer by layer |
| latency.png | predicted and measured times, if they were limited |
"""
import importlib.util
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, Mapping, Optional, Sequence,
                    Tuple, Union)

from torch import Tensor, nn

from ..adapters.quantised import is_quantised_linear
from ..compat import strided_convolution
from ..core.decision import Decision
from ..core.resource import METRICS
from ..counting import count_each
from ..masking.sharded import written_once
from ..network import to_device_of
from ..space import Space
from .checks import check_counts, check_finite
from .even import even_share
from .files import whole_folder, write_text
from .latency_picture import draw_latency
from .manifest import Manifest, describe_subnet
from .moments import carry_over
from .page import STYLE, fragment, write_page
from .picture import draw_structure
from .portable import FORMATS, write_portable
from .report import Report, amount, compare_layers
from .slicing import plain_copy, slice_model
from .statistics import LOADER, recalibrate, training_norms
from .timed import Timed
from .weights import save_weights, with_weights

FILES = ('subnet.json', 'subnet.pth', 'retrain.py', 'base.py', 'report.md',
         'report.json', 'report.html', 'structure.png', 'latency.png')
"""Every file that an export may hold."""


@dataclass
class Export:
    """An export that is complete.

    Attributes:
        path (Path): The folder.
        model (nn.Module): The subnet with the searched weights.
        manifest (Manifest): What is in subnet.json.
        report (Report): What is in report.md and report.json.
        inputs (Any): What its forward takes.
        forward (callable, optional): How it is called, if not simply.
        cut (callable, optional): Cuts a network like the supernet likewise.
    """
    path: Path
    model: nn.Module
    manifest: Manifest
    report: Report
    inputs: Any = None
    forward: Optional[Callable] = None
    cut: Optional[Callable[[nn.Module], nn.Module]] = None

    def carry_over(self, supernet: nn.Module, optimizer: Any, new: Any) -> int:
        """Give an optimizer of :attr:`model` what that of the search has.

        Adam's moments and SGD's momentum, cut like the weights, so that
        finetuning goes on where the search ended.

        Args:
            supernet (nn.Module): The network that was searched.
            optimizer (Optimizer): What it was trained with.
            new (Optimizer): Of the same kind, of ``model.parameters()``.

        Returns:
            int: The number of parameters that have a state now.

        Raises:
            TypeError, ValueError: See :func:`.moments.carry_over`.
        """
        # Weights of channels that have become the same have one gradient.
        cut = partial(self.cut, fold=False)
        return carry_over(optimizer, supernet, cut, new, self.model)

    def onnx(self, path: Union[None, str, Path] = None) -> Path:
        """Write :attr:`model`, as it is now, to an ONNX file.

        Args:
            path (str | Path, optional): By default subnet.onnx in the folder.

        Raises:
            DeployError: See :func:`write_portable`.
        """
        return self._file('onnx', path)

    def torchscript(self, path: Union[None, str, Path] = None) -> Path:
        """The same as TorchScript, by default subnet.pt."""
        return self._file('torchscript', path)

    def pt2(self, path: Union[None, str, Path] = None) -> Path:
        """The same by torch.export, by default subnet.pt2."""
        return self._file('pt2', path)

    def _file(self, format: str, path: Union[None, str, Path]) -> Path:
        return write_portable(self.model, self.inputs, path
                              or self.path / f'subnet{FORMATS[format]}',
                              format, self.forward)

    def __repr__(self) -> str:
        return f'{self.report.summary()}\n  in {self.path}'

    def _repr_html_(self) -> str:
        """For notebooks: the page without its lists."""
        return f'<style>{STYLE}</style>{fragment(self.report.to_dict())}'


def export_subnet(out_dir: Union[str, Path],
                  model: nn.Module,
                  space: Space,
                  selection: Tensor,
                  *,
                  target: Optional[float] = None,
                  metric: str = 'macs',
                  limits: Optional[Mapping[str, float]] = None,
                  inputs: Any = None,
                  forward: Optional[Callable] = None,
                  weights: Any = None,
                  retrain: Optional[Any] = None,
                  bn_data: Optional[Iterable] = None,
                  bn_batches: Optional[int] = None,
                  bn_forward: Optional[Callable] = None,
                  decision: Optional[Decision] = None,
                  scores: Optional[Dict[str, Any]] = None,
                  timed: Optional[Timed] = None,
                  notes: Sequence[str] = (),
                  picture: bool = True) -> Export:
    """Cut out a subnet, check it, and write it down, whole or not at all.

    Args:
        out_dir (str | Path): The folder, e.g. ``work_dir/subnet``.
        model (nn.Module): The supernet, masked or not. It is not changed.
        space (Space): The space of ``model``.
        selection (Tensor): Bool of shape [E], True for what stays.
        target (float, optional): What was asked, in units of ``metric``.
        metric (str): What ``target`` limits. Defaults to 'macs'.
        limits (Mapping[str, float], optional): In place of both, of several.
        inputs, forward: Of :func:`.trace`, if others than when it was traced.
        weights (Any, optional): In place of the model's own: their average,
            or those that were quantised. See :func:`.weights.with_weights`.
        retrain (RetrainConfig, optional): What makes retrain.py, if any.
        bn_data, bn_batches, bn_forward: What the BatchNorm statistics, else
            the supernet's, are taken from (20 batches): :func:`recalibrate`.
        decision, scores, timed, notes: What :class:`.Report` has of them.
        picture (bool): Whether to draw with matplotlib.

    Raises:
        SubnetError: ``selection`` is no network of the space, costs or
            weights are wrong, or the folder holds something else.
        ValueError: There is no such metric, or ``bn_batches`` without data.
    """
    limits = _asked(target, metric, limits)
    model, notes = _weighed(model, weights, notes)
    selection = space.checked(selection)
    metric = _binding(space, selection, limits, metric)
    texts = {} if retrain is None else retrain.files()
    subnet, report = _cut(model, space, selection, inputs, forward, metric,
                          limits)
    _know(report, decision, scores, timed, notes)
    _take_statistics(subnet, report, bn_data, bn_batches, bn_forward)
    check_finite(subnet)
    report.even = even_share(space, limits or {metric: report.cost(metric)})
    _write(out_dir, model, subnet, report, texts, picture)
    return Export(
        Path(out_dir), subnet, report.manifest, report,
        space.example_inputs if inputs is None else inputs, forward,
        partial(slice_model, space=space, selection=selection))


def _asked(target: Optional[float], metric: str,
           limits: Optional[Mapping[str, float]]) -> Mapping[str, float]:
    """What was asked in each metric; all are known."""
    limits = limits or ({} if target is None else {metric: target})
    for name in limits or (metric, ):
        METRICS.find(name)
    return limits


def _weighed(model: nn.Module, weights: Any,
             notes: Sequence[str]) -> Tuple[nn.Module, Sequence[str]]:
    """The model, with other weights in a copy of it if there are any; notes
    of that, and of layers that were quantised."""
    notes = [*notes, *_quantised(model, weights)]
    if weights is None:
        return model, notes
    note = 'The weights are those that were given to the export, an average.'
    return with_weights(plain_copy(model), weights), [*notes, note]


def _quantised(model: nn.Module, weights: Any) -> Sequence[str]:
    """What to know of a network that was searched quantised."""
    layers = sum(map(is_quantised_linear, model.modules()))
    if not layers:
        return []
    note = f'The network was searched with {layers} quantised linear ' \
        'layers, which are ordinary ones here: '
    return [
        note + ('the structure of that search, with the weights that were '
                'given to the export.' if weights is not None else
                'the weights are dequantised, rounded as they were while it '
                'was searched. Quantise again what comes out; weights= takes '
                'the network in floating point instead.')
    ]


def _know(report: Report, decision: Optional[Decision],
          scores: Optional[Dict[str, Any]], timed: Optional[Timed],
          notes: Sequence[str]) -> None:
    """What the caller knows of a subnet."""
    report.decision, report.scores = decision, scores or {}
    report.latency = timed
    report.manifest.measured = timed.figures() if timed else {}
    report.notes += notes


def _write(out_dir: Union[str, Path], model: nn.Module, subnet: nn.Module,
           report: Report, texts: Dict[str, str], picture: bool) -> None:
    """All files; the page last, for it lists the others.

    All ranks of a sharded network have the same, and the first one writes.
    """
    picture = picture and _can_draw(report)
    texts = {
        'report.md': report.to_markdown(),
        'report.json': report.to_json(),
        **texts
    }
    with written_once(model) as here, ExitStack() as stack:
        if not here:
            return
        folder = stack.enter_context(whole_folder(out_dir, FILES))
        report.manifest.save(folder / 'subnet.json')
        save_weights(subnet, folder / 'subnet.pth')
        for name, text in texts.items():
            write_text(folder / name, text)
        if picture:
            draw_structure(report.to_dict(), folder / 'structure.png')
        if picture and report.latency:
            draw_latency(report.to_dict(), folder / 'latency.png')
        write_page(folder)


def _binding(space: Space, selection: Tensor, limits: Mapping[str, float],
             metric: str) -> str:
    """The metric whose limit the subnet comes nearest to."""
    return max(
        limits,
        key=lambda name: space.cost(selection, name) / limits[name],
        default=metric)


def _check_statistics(data: Optional[Iterable], *how: Any) -> None:
    """Refuse what says how statistics are taken where there is no data."""
    if data is None and how != (None, None):
        raise ValueError(
            'bn_batches= and bn_forward= say how the BatchNorm statistics are '
            'taken from bn_data=, which was not given, so that they would be '
            f'those of the supernet: {LOADER}')


def _take_statistics(subnet: nn.Module, report: Report,
                     data: Optional[Iterable], batches: Optional[int],
                     forward: Optional[Callable]) -> None:
    """Recalibrate if there is data; say whose statistics it has anyway."""
    _check_statistics(data, batches, forward)
    if not training_norms(subnet):
        return
    if data is None:
        report.notes.append(
            'BatchNorm statistics are those of the soft supernet, which this '
            'network is not: evaluated as it is, it can lose many points. '
            'Train it, or export with bn_data=.')
        return
    used = recalibrate(subnet, data, 20 if batches is None else batches,
                       forward)
    report.notes.append(f'BatchNorm statistics are from {used} batches.')


def _can_draw(report: Report) -> bool:
    if importlib.util.find_spec('matplotlib') is not None:
        return True
    report.notes.append('There is no picture of the structure, because '
                        'matplotlib is not installed.')
    return False


def _cut(model: nn.Module, space: Space, selection: Tensor, inputs: Any,
         forward: Optional[Callable], metric: str,
         limits: Mapping[str, float]) -> Tuple[nn.Module, Report]:
    """The subnet, checked, and what there is to say about it."""
    supernet = plain_copy(model)
    subnet = slice_model(supernet, space, selection)
    before = space.counted if inputs is None else None
    inputs = to_device_of(model,
                          space.example_inputs if inputs is None else inputs)
    before = before or count_each(supernet, inputs, forward)
    after = count_each(subnet, inputs, forward)
    manifest = describe_subnet(
        supernet,
        subnet,
        space,
        selection,
        inputs,
        after,
        forward=forward,
        metric=metric,
        target=limits.get(metric))
    if len(limits) > 1:
        manifest.limits = dict(limits)
    check_counts(supernet, space, counts=before)
    check_counts(subnet, space, selection, after)
    report = Report(
        manifest,
        compare_layers(
            supernet, subnet, manifest.removed,
            *(counts['macs'].of_one(space.batch_size)
              for counts in (before, after))),
        counter=after['macs'].tool,
        full_width=[
            dict(module=stay.module, reason=stay.reason)
            for stay in space.full_width
        ])
    fault = strided_convolution.warning(subnet)
    report.notes += [fault] if fault else []
    if space.proof is not None:
        report.notes.append(f'Self-check: {space.proof.text()}.')
    for name, limit in limits.items():
        cost = report.cost(name)
        if cost > limit:
            report.notes.append(
                f'The subnet is above what was asked: {amount(cost)} instead '
                f'of at most {limit:,.0f} {name}.')
    return subnet, report
