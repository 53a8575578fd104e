# Copyright (c) dms_razor contributors. All rights reserved.
"""How long a module runs, in PyTorch or in ONNX Runtime."""
import io
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..network import tensors_of
from .on_device import machine, session_of

BACKENDS = ('torch', 'onnxruntime')


class TimingError(RuntimeError):
    """Something cannot be measured with this backend."""


@dataclass(frozen=True)
class Setting:
    """With what is measured.

    Args:
        backend (str): 'torch' or 'onnxruntime'.
        threads (int): Of the backend.

    Raises:
        ValueError: There is no such backend or number of threads.
    """
    backend: str = 'torch'
    threads: int = 1

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f'there is no backend {self.backend!r}, use one '
                             f'of {", ".join(BACKENDS)}')
        if self.threads < 1:
            raise ValueError(f'{self.threads} threads cannot run anything; '
                             'give at least 1')

    def describe(self) -> Dict[str, Any]:
        """The setting and the machine, as plain data."""
        versions = dict(torch=torch.__version__)
        if self.backend == 'onnxruntime':
            versions['onnxruntime'] = _runtime().__version__
        return dict(
            asdict(self),
            device='cpu',
            precision='fp32',
            **machine(),
            versions=versions)


def _runtime():
    try:
        import onnxruntime
    except ImportError as error:
        raise TimingError(
            'ONNX Runtime is not installed: pip install onnx onnxruntime, or '
            "use the backend 'torch'") from error
    return onnxruntime


class _Called(nn.Module):
    """A network whose outputs are tensors, for the exporter."""

    def __init__(self, model: nn.Module, forward: Callable) -> None:
        super().__init__()
        self.model, self.call = model, forward

    def forward(self, *inputs: Tensor) -> Tuple[Tensor, ...]:
        """All tensors that the network returns."""
        return tuple(tensors_of(self.call(self.model, *inputs)))


def runner(model: nn.Module, inputs: Sequence[Tensor], setting: Setting,
           forward: Callable) -> Callable[[], Any]:
    """A function that runs a network once, as the backend does.

    Args:
        model (nn.Module): In eval mode.
        inputs (Sequence[Tensor]): What it is called with.
        setting (Setting): The backend.
        forward (callable): ``forward(model, *inputs)``.

    Raises:
        TimingError: The backend is not there or cannot take the network.
    """
    if setting.backend == 'torch':

        def run() -> None:
            with torch.inference_mode():
                forward(model, *inputs)

        return run
    _runtime()
    content, feed = exported(model, inputs, forward)
    try:
        session = session_of(content, setting.threads, 'CPUExecutionProvider')
    except Exception as error:
        raise _cannot(model, error) from error
    return lambda: session.run(None, feed)


def exported(model: nn.Module, inputs: Sequence[Tensor],
             forward: Callable) -> Tuple[bytes, Dict[str, Any]]:
    """A network as the content of an ONNX file, and its inputs by name.

    Args:
        model, inputs, forward: As for :func:`runner`.

    Raises:
        TimingError: It cannot be exported.
    """
    file, by_tracing = io.BytesIO(), {}
    if tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 5):
        by_tracing = dict(dynamo=False)  # needs no other package
    names = [f'input{n}' for n in range(len(inputs))]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                _Called(model, forward),
                tuple(inputs),
                file,
                input_names=names,
                opset_version=17,
                **by_tracing)
        feed = {name: x.numpy() for name, x in zip(names, inputs)}
    except Exception as error:
        raise _cannot(model, error) from error
    return file.getvalue(), feed


def _cannot(model: nn.Module, error: Exception) -> TimingError:
    return TimingError(
        f'{type(model).__name__} cannot be run by ONNX Runtime '
        f"({type(error).__name__}: {error}); use the backend 'torch'")


@contextmanager
def threads(setting: Setting) -> Iterator[None]:
    """PyTorch with so many threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
