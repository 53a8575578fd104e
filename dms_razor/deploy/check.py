# Copyright (c) dms_razor contributors. All rights reserved.
"""Runs written files: do they compute what the network does, how fast?"""
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, Dict, List, Sequence, Tuple, Union
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ..network import tensors_of
from .boxes import DetectedBoxes
from .suppression import detection_difference
from .write import DeployError, write_network

BOUND = 1e-4
"""What a file may differ by from its network; see :func:`difference`."""

Run = Callable[[Tensor], List[Tensor]]


def load(path: Union[str, Path], threads: int = 0) -> Run:
    """Load a written file.

    Args:
        path (str | Path): What :func:`write_network` wrote.
        threads (int): Of ONNX Runtime; 0 leaves it to it.

    Returns:
        callable: From images (B, C, H, W) to the list of outputs.

    Raises:
        DeployError: If ONNX Runtime is needed and not installed, if threads
            are asked for and not needed, or if the file cannot be loaded.
    """
    path = Path(path)
    try:
        if path.suffix == '.onnx':
            return _load_onnx(path, threads)
        if threads:
            raise DeployError(f'{path.name} is run by PyTorch, whose threads '
                              'are set by torch.set_num_threads; load it '
                              'without threads')
        module = (
            torch.export.load(str(path)).module()
            if path.suffix == '.pt2' else torch.jit.load(str(path)))
    except DeployError:
        raise
    except Exception as error:  # ONNX Runtime has its own, of no common kind
        raise _no_use(path, 'loaded', error) from error

    def run(images: Tensor) -> List[Tensor]:
        with torch.no_grad():
            return tensors_of(module(images))

    return run


def _no_use(path: Path, what: str, error: Exception) -> DeployError:
    return DeployError(f'{path.name} cannot be {what} ({type(error).__name__}'
                       f': {error}); try another format')


def _load_onnx(path: Path, threads: int) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeployError(
            f'{path.name} can only be run with ONNX Runtime, which is not '
            'installed: pip install onnxruntime') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1 if threads else 0
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider'])

    def run(images: Tensor) -> List[Tensor]:
        return list(
            map(torch.from_numpy,
                session.run(None, {'images': images.cpu().numpy()})))

    return run


def difference(network: nn.Module, path: Union[str, Path],
               images: Tensor) -> float:
    """Compare a written file with its network on some images.

    Args:
        network (nn.Module): What was written.
        path (str | Path): The file.
        images (Tensor): (B, C, H, W), of any batch size.

    Returns:
        float: Largest difference, over the largest output where that is
        above 1; infinite where shapes differ or an output is no number. Of
        detections see
        :func:`~dms_razor.deploy.suppression.detection_difference`.

    Raises:
        DeployError: If the file cannot be loaded or run.
    """
    path = Path(path)
    run = load(path)
    try:
        found = run(images)
    except Exception as error:
        raise _no_use(path, 'run', error) from error
    if isinstance(network, DetectedBoxes):
        return detection_difference(network, found[0], images)
    with torch.no_grad():
        expected = tensors_of(network(images))
    pairs = list(zip(expected, found))
    # max() would pass over a nan
    if len(expected) != len(found) or not all(
            a.shape == b.shape and a.isfinite().all() and b.isfinite().all()
            for a, b in pairs):
        return float('inf')
    return max([
        0., *(float((a - b).abs().max()) / max(1., float(a.abs().max()))
              for a, b in pairs if a.numel())
    ])


def write_compared(network: nn.Module,
                   images: Tensor,
                   path: Union[str, Path],
                   format: str,
                   bound: float = BOUND) -> Tuple[Path, float]:
    """Write a network if the file computes what the network does.

    It is compared, before it gets its name, on random images of another
    batch size than the one it is written with. Where a detector finds nothing
    in them, a file is compared too that differs in its threshold alone.

    Args:
        network, images, path, format: As for :func:`write_network`.
        bound (float): What it may differ by; see :func:`difference`.

    Returns:
        tuple: The file, and what it differs by.

    Raises:
        DeployError: If it cannot be written, loaded or run, or differs.
            Nothing is left of it.
    """
    path = Path(path)
    others = torch.randn(max(2, len(images)) + 1, *images.shape[1:])
    found: List[float] = []

    def check(file: Path) -> None:
        try:
            worst = difference(network, file, others)
        except DeployError as error:  # by the name it would have got
            raise DeployError(f'{str(error).replace(file.name, path.name)}. '
                              'It was not kept') from error
        if not worst < bound:
            raise DeployError(
                f'{path.name} would differ from the network by {worst:.1e} '
                'of the largest output and was not kept; try another format')
        found.append(worst)

    if isinstance(network, DetectedBoxes):
        lower = _threshold_with_boxes(network, others)
        if lower < network.score_thr:
            with patch.object(network, 'score_thr', lower), \
                    TemporaryDirectory() as folder:
                write_network(network, images,
                              Path(folder) / path.name, format, check)
    return write_network(network, images, path, format, check), max(found)


def _threshold_with_boxes(network: DetectedBoxes,
                          images: Tensor,
                          number: int = 100) -> float:
    """The threshold of scores, or one that about ``number`` scores exceed."""
    with torch.no_grad():
        margin = network.decode(network.model(images)).margin.flatten()
    if (margin > 0).any():
        return network.score_thr
    return network.score_thr + float(
        margin.topk(min(number, len(margin)))[0][-1])


def onnx_latency(paths: Dict[str, Union[str, Path]],
                 images: Tensor,
                 threads: Sequence[int] = (1, ),
                 rounds: int = 30,
                 warmup: int = 3) -> Dict[str, Dict[int, float]]:
    """Median time of one forward pass in ONNX Runtime.

    The networks take turns, so that a busy machine is equally busy for all.

    Args:
        paths (dict): Name to ONNX file.
        images (Tensor): The batch.
        threads (Sequence[int]): Numbers of threads to measure with.
        rounds (int): Timed runs of each network.
        warmup (int): Runs before them.

    Returns:
        dict: Milliseconds by name and threads.
    """
    table: Dict[str, Dict[int, float]] = {name: {} for name in paths}
    for number in threads:
        runs = {name: load(path, number) for name, path in paths.items()}
        times: Dict[str, List[float]] = {name: [] for name in paths}
        for _ in range(warmup + rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run(images)
                times[name].append(time.perf_counter() - start)
        for name, measured in times.items():
            table[name][number] = 1000 * statistics.median(measured[warmup:])
    return table
