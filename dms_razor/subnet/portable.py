# Copyright (c) dms_razor contributors. All rights reserved.
"""A network as a file that runs without its Python code.

ONNX, TorchScript and torch.export, by torch's own writers. Whatever a network
is called with, as long as it is tensors: it goes in by name, and batches of
any size go through. TorchScript and torch.export return what the network
returns, a tensor for a tensor; what an ONNX file returns is a flat list.
"""
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..adapters.mutables import widths_without_mutables
from ..adapters.windows import windows_of_any_batch
from ..errors import nearest
from ..network import (refuse_no_network, run_model, several, tensors_of,
                       untouched)
from .files import whole_file
from .slicing import plain_copy

FORMATS = {'onnx': '.onnx', 'torchscript': '.pt', 'pt2': '.pt2'}
"""Formats and what their files end with."""

OPSET = 17
BOUND = 1e-4
"""What a file may differ by, over the largest output where that is above 1."""


class DeployError(RuntimeError):
    """A network cannot be written in a format, or the file is wrong."""


@dataclass
class Names:
    """What goes in and comes out of a file.

    Attributes:
        inputs (list[str]): Name of each input.
        outputs (list[str]): Name of each output.
        batched (list[bool]): Whether the first axis of an input counts
            samples.
        first (str): Name of the first axis of the outputs.
    """
    inputs: List[str]
    outputs: List[str]
    batched: List[bool]
    first: str = 'batch'


def write_onnx(network: nn.Module, inputs: Tuple[Tensor, ...], path: Path,
               names: Names) -> None:
    """An ONNX file; the network returns a flat tuple of tensors."""
    # the exporter by tracing, which needs no other package and keeps all in
    # one file; later versions of torch have another default
    by_tracing = {'dynamo': False} if torch.__version__ >= '2.5' else {}
    batched = [n for n, any_size in zip(names.inputs, names.batched)
               if any_size]  # yapf: disable
    torch.onnx.export(
        network,
        inputs,
        str(path),
        input_names=names.inputs,
        output_names=names.outputs,
        dynamic_axes={
            **dict.fromkeys(batched, {0: 'batch'}),
            **dict.fromkeys(names.outputs if batched else (), {0: names.first})
        },
        opset_version=OPSET,
        **by_tracing)


def write_torchscript(network: nn.Module, inputs: Tuple[Tensor, ...],
                      path: Path, names: Names) -> None:
    """A frozen TorchScript file."""
    with torch.jit.optimized_execution(False):
        # not strict: else no network may return a dictionary
        traced = torch.jit.trace(
            network, inputs, check_trace=False, strict=False)
    torch.jit.save(torch.jit.freeze(traced.eval()), str(path))


def write_pt2(network: nn.Module, inputs: Tuple[Tensor, ...], path: Path,
              names: Names) -> None:
    """A file of torch.export."""
    batch = torch.export.Dim('batch', min=1)
    shapes = tuple({0: batch} if any_size else {}
                   for any_size in names.batched)
    starred = isinstance(network, Portable)
    program = torch.export.export(
        network, inputs, dynamic_shapes=(shapes, ) if starred else shapes)
    for node in program.graph.nodes:
        # where in whose Python code it was: as large as the weights of a
        # small network
        for note in ('stack_trace', 'nn_module_stack', 'source_fn_stack'):
            node.meta.pop(note, None)
    torch.export.save(program, str(path))


WRITERS = dict(onnx=write_onnx, torchscript=write_torchscript, pt2=write_pt2)


class Portable(nn.Module):
    """A copy of a network in eval mode: tensors in, and out what it returns.

    Args:
        model (nn.Module): The network; it stays as it is.
        inputs (Any): Example inputs: a tensor, several, or a mapping.
        forward (callable, optional): How it is run, if not simply called.

    Attributes:
        tensors (tuple[Tensor]): The tensors among the inputs.
        names (Names): Of inputs and outputs; ``batched`` are those whose
            first axis is as long as that of the first.
        flat (bool): Whether it returns its tensors in one flat tuple.

    Raises:
        DeployError: A tensor lies in a container, or there is none.
    """

    def __init__(self,
                 model: nn.Module,
                 inputs: Any,
                 forward: Optional[Callable] = None) -> None:
        super().__init__()
        self.model = plain_copy(model).cpu()
        # torch.onnx gives the mode of the whole to its parts afterwards, so
        # that with eval() of the network alone BatchNorm would train again
        self.eval()
        self.run, self.named = forward or run_model, None
        self.flat = True
        given = inputs
        if isinstance(inputs, Mapping):
            self.named, given = list(inputs), list(inputs.values())
        self.given = list(several(given))
        names = self.named or [
            'input' if len(self.given) == 1 else f'input_{number}'
            for number in range(len(self.given))
        ]
        for name, value in zip(names, self.given):
            if not isinstance(value, Tensor) and tensors_of(value):
                raise DeployError(
                    f'"{name}" is a {type(value).__name__} with tensors in '
                    'it, and a file takes tensors by name: give a forward '
                    'that takes each by itself')
        self.places = [
            i for i, value in enumerate(self.given)
            if isinstance(value, Tensor)
        ]
        if not self.places:
            raise DeployError('the network is called without any tensor, so '
                              'that a file of it would have no input')
        if not all(self.given[i].numel() for i in self.places[:1]):
            raise DeployError(f'"{names[self.places[0]]}" is empty, so that '
                              'no file can be made or compared: give one '
                              'sample or more')
        self.tensors = tuple(self.given[i].cpu() for i in self.places)
        with untouched(self.model):
            outputs = len(tensors_of(self(*self.tensors)))
        first = self.tensors[0].shape[:1]
        self.names = Names(
            [names[i] for i in self.places], ['output'] if outputs == 1 else
            [f'output_{number}' for number in range(outputs)],
            [bool(first) and x.shape[:1] == first for x in self.tensors])

    def forward(self, *tensors: Tensor) -> Any:
        """What the network returns, or its tensors in their order."""
        values = list(self.given)
        for place, tensor in zip(self.places, tensors):
            values[place] = tensor
        found = self.run(self.model, *values) if self.named is None else \
            self.run(self.model, **dict(zip(self.named, values)))
        return tuple(tensors_of(found)) if self.flat else built_in(found)

    def example(self, samples: int, draw: bool = False) -> Tuple[Tensor, ...]:
        """The inputs for a number of samples.

        Args:
            samples (int): How many.
            draw (bool): Whether numbers are drawn anew; whole ones stay.
        """
        found = []
        for tensor, batched in zip(self.tensors, self.names.batched):
            if batched:
                index = torch.arange(samples) % len(tensor)
                tensor = tensor[index]
            floats = tensor.is_floating_point()
            found.append(
                torch.randn_like(tensor) if draw and floats else tensor.clone(
                ))
        return tuple(found)


def built_in(output: Any) -> Any:
    """A network's output in the containers that files have: tuple, list, dict.

    Classes of its own, of its package, a file could not be loaded without.

    Raises:
        TypeError: There is something else in it.
    """
    if isinstance(output, Mapping):
        return {name: built_in(part) for name, part in output.items()}
    if isinstance(output, (tuple, list)):
        parts = [built_in(part) for part in output]
        return parts if isinstance(output, list) else tuple(parts)
    if output is not None and not isinstance(output,
                                             (Tensor, bool, int, float, str)):
        raise TypeError(f'it holds a {type(output).__name__}')
    return output


def write_portable(model: nn.Module,
                   inputs: Any,
                   path: Union[str, Path],
                   format: str = 'onnx',
                   forward: Optional[Callable] = None) -> Path:
    """Write a network to a file and compare the file with it.

    A file of TorchScript or torch.export returns what the network returns. If
    the format cannot hold that, which is warned of, it returns the tensors of
    it in one flat tuple; ONNX files always do, under names.

    Args:
        model (nn.Module): The network, e.g. of an export or of
            :func:`build_subnet`; written in eval mode, with its weights.
        inputs (Any): As its forward takes them, a batch in front.
        path (str | Path): The file; it appears whole, or not at all.
        format (str): A key of :data:`FORMATS`.
        forward (callable, optional): How it is run, if not simply called.

    Returns:
        Path: The file.

    Raises:
        DeployError: There is no such format, a package is missing, torch
            cannot write this network in it, or the file computes something
            else.
    """
    if format not in WRITERS:
        raise DeployError(f'there is no format {format!r}'
                          f'{nearest(format, WRITERS)}: use one of '
                          f'{", ".join(WRITERS)}')
    path = Path(path)
    if path.suffix != FORMATS[format] or path.is_dir():
        raise DeployError(f'{path} is no file name for the format {format}; '
                          f'name a file that ends with {FORMATS[format]}')
    refuse_no_network(model, 'write_portable')
    network = Portable(model, inputs, forward)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        _write(network, file, format, path.name)
        _compare(network, file, format, path.name)
    return path


def _write(network: Portable, file: Path, format: str, name: str) -> None:
    """Write it, with its outputs as they are where the format has such."""
    network.flat = format == 'onnx'
    try:
        try:
            _write_as(network, file, format)
        except Exception as error:
            if network.flat or isinstance(error, ImportError):
                raise
            # Either its outputs are of a kind that the format has not, or all
            # of it is not written; then this fails as well and says why.
            network.flat = True
            _write_as(network, file, format)
            warnings.warn(
                f'{name} returns the tensors of the network\'s output in one '
                f'flat tuple, because {format} cannot hold the output as it '
                f'is ({_first_line(error)}); for another structure give a '
                'forward that returns a tensor, a tuple or a dict of tensors',
                stacklevel=3)
    except ImportError as error:
        package = error.name or str(error)
        raise DeployError(
            f'{name} needs the package {package}, which is not installed: pip '
            f'install {package}; torchscript and pt2 need torch alone'
        ) from error
    except Exception as error:  # the exporters have errors of many types
        others = ' or '.join(other for other in WRITERS if other != format)
        raise DeployError(
            f'{type(error).__name__} while writing {name}: '
            f'{_first_line(error)}. Try {others}, or give a forward that '
            'returns tensors alone') from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0]


def _write_as(network: Portable, file: Path, format: str) -> None:
    with warnings.catch_warnings(), torch.no_grad(), \
            windows_of_any_batch(), widths_without_mutables(network):
        warnings.simplefilter('ignore')
        # torch.export takes a batch of one for a constant
        samples = max(2, len(network.tensors[0])) \
            if network.names.batched[0] else 1
        WRITERS[format](network, network.example(samples), file, network.names)


def _runner(network: Portable, file: Path, format: str,
            name: str) -> Optional[Callable[..., Any]]:
    """What runs a file; None where ONNX Runtime is not installed."""
    if format == 'pt2':
        return torch.export.load(str(file)).module()
    if format == 'torchscript':
        return torch.jit.load(str(file))
    try:
        import onnxruntime
    except ImportError:
        warnings.warn(
            f'{name} was not compared with the network, because ONNX Runtime '
            'is not installed: pip install onnxruntime',
            stacklevel=4)
        return None
    session = onnxruntime.InferenceSession(
        str(file), providers=['CPUExecutionProvider'])
    used = {entry.name for entry in session.get_inputs()}

    def run(*tensors: Tensor) -> List[Tensor]:
        given = {
            name: tensor.numpy()
            for name, tensor in zip(network.names.inputs, tensors)
            if name in used
        }
        return [torch.from_numpy(x) for x in session.run(None, given)]

    return run


def _compare(network: Portable, file: Path, format: str, name: str) -> None:
    """Raise if the file computes something else, also for another batch."""
    run = _runner(network, file, format, name)
    if run is None:
        return
    inputs = network.example(3, draw=True)
    with torch.no_grad():
        expected = tensors_of(network(*inputs))
        try:
            found = tensors_of(run(*inputs))
        except Exception as error:
            raise DeployError(
                f'{name} does not run on three samples ({_first_line(error)}) '
                'and was not kept; try another format') from error
    worst = max(map(_difference, expected, found), default=0.)
    if len(expected) != len(found) or worst >= BOUND:
        raise DeployError(
            f'{name} would differ from the network by {worst:.1e} of the '
            'largest output and was not kept; try another format')


def _difference(expected: Tensor, found: Tensor) -> float:
    """Largest difference, over the largest entry where that is above 1."""
    if expected.shape != found.shape:
        return float('inf')
    if not expected.numel():
        return 0.
    expected, found = expected.double(), found.double()
    apart = float((expected - found).abs().max())
    return apart / max(1., float(expected.abs().max())) \
        if apart == apart else float('inf')
