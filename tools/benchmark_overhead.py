# Copyright (c) dms_razor contributors. All rights reserved.
"""Time a search step against a plain training step of the same supernet.

Both networks are trained side by side in one process, on random images, with
the config's optimizer: each round runs a plain step, a search step and a
plain step again. The ratios are medians over the rounds, so that a busy
machine slows both sides; the two plain steps of a round give the control.

JSON keys: plain_s and search_s (seconds a step, medians), ratio (search over
plain), control_ratio (plain over plain), saved_bytes_ratio (activations kept
for the backward pass, search over plain), masks_ms (milliseconds that the
bank itself takes a step: masks, resource and update); on a GPU
peak_bytes_ratio too, the most memory that a step holds, weights and the
optimizer's included, search over plain.
"""
import argparse
import copy
import logging
import statistics
import sys
import time
from contextlib import redirect_stdout
from typing import Callable

import torch
from _kept import kept_bytes
from _launch import at_least, config_parser, read_config, tell
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample

from dms_razor.masking import unmask
from dms_razor.openmmlab.from_config import algorithm_of_config


class Side:
    """A network with its optimizer, and batches to train it on.

    Args:
        model (BaseModel): A DMS algorithm or a plain classifier.
        cfg (Config): The search's config.
        batch (dict): Images and data samples, preprocessed.
    """

    def __init__(self, model, cfg: Config, batch: dict) -> None:
        self.model, self.batch = model.train(), batch
        self.optim_wrapper = build_optim_wrapper(
            model, copy.deepcopy(cfg.optim_wrapper))

    def loss(self) -> torch.Tensor:
        """Loss of one forward pass, ready for backward."""
        with self.optim_wrapper.optim_context(self.model):
            losses = self.model(**self.batch, mode='loss')
        return self.model.parse_losses(losses)[0]

    def step(self) -> float:
        """Train one step; returns the seconds it took."""
        return seconds(lambda: self.optim_wrapper.update_params(self.loss()))

    def saved_bytes(self) -> int:
        """Bytes of all storages that one backward pass needs, but weights."""
        return kept_bytes(self.model, self.loss)

    def peak_bytes(self) -> int:
        """The most bytes on the GPU in one step, of this side alone."""
        optimizer = self.optim_wrapper.optimizer
        state = [
            value for values in optimizer.state.values()
            for value in values.values() if torch.is_tensor(value)
        ]
        own = sum(
            tensor.nbytes for tensor in (*self.model.parameters(),
                                         *self.model.buffers(), *state))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step()
        return own + torch.cuda.max_memory_allocated() - before


def seconds(work: Callable[[], object]) -> float:
    """Seconds that some work takes, on the GPU too if there is one."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def make_sides(cfg: Config, batch: int):
    """The search and the plain network, with equal weights, on one device."""
    search = algorithm_of_config(cfg)
    classes = getattr(search.architecture.head, 'num_classes', None)
    if classes is None:
        raise ValueError(
            f'{cfg.filename} searches no classifier with a number of classes; '
            'benchmark a config of one')
    search.init_weights()
    plain = unmask(copy.deepcopy(search.architecture))
    device = get_device()
    search.to(device), plain.to(device)
    shape = search.mutator.space.input_shape[1:]
    data = search.data_preprocessor(
        dict(
            inputs=[torch.randint(0, 256, shape) for _ in range(batch)],
            data_samples=[
                DataSample().set_gt_label(i % classes) for i in range(batch)
            ]),
        training=True)
    sides = Side(search, cfg, data), Side(plain, cfg, data)
    search.search.set_length(10**6)
    search.search.attach(sides[0].optim_wrapper.optimizer)
    # Somewhere in the middle of a search, so that all terms are at work.
    search.search.bank.ratios += .1
    search.search.bank.refresh()
    return sides


def time_bank(search, repeats: int = 20) -> float:
    """Seconds that masks, resource and update take in one step, median."""
    gradient = torch.randn_like(search.bank.masks)

    def step() -> None:
        search.resource_term().backward()
        search.bank.masks.grad = gradient.clone()
        search.step()

    return statistics.median(seconds(step) for _ in range(repeats))


def benchmark(cfg: Config,
              batch: int,
              rounds: int,
              warmup: int,
              amp: bool = False) -> dict:
    """Run the rounds; see the module's docstring for the keys."""
    if amp:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    search, plain = make_sides(cfg, batch)
    times = [(plain.step(), search.step(), plain.step())
             for _ in range(warmup + rounds)][warmup:]
    peak = {}
    if torch.cuda.is_available():
        peak['peak_bytes_ratio'] = search.peak_bytes() / plain.peak_bytes()
    return dict(
        plain_s=statistics.median(t for first, _, last in times
                                  for t in (first, last)),
        search_s=statistics.median(searched for _, searched, _ in times),
        ratio=statistics.median(2 * searched / (first + last)
                                for first, searched, last in times),
        control_ratio=statistics.median(last / first
                                        for first, _, last in times),
        saved_bytes_ratio=search.saved_bytes() / plain.saved_bytes(),
        masks_ms=1e3 * time_bank(search.model.search),
        **peak)


def rounds_parser(description: str, warmup: int) -> argparse.ArgumentParser:
    """Arguments of a benchmark of a classifier's steps, in rounds."""
    parser = config_parser(
        description, 'config of a search of a classifier', as_json=True)
    parser.add_argument(
        '--batch',
        type=at_least(1, 'give at least 1'),
        default=8,
        help='batch size')
    parser.add_argument(
        '--rounds',
        type=at_least(1, 'give at least 1'),
        default=20,
        help='rounds that count, 20 by default')
    parser.add_argument(
        '--warmup',
        type=at_least(0, 'give at least 0'),
        default=warmup,
        help='rounds that do not count')
    return parser


def run(args: argparse.Namespace, measure: Callable[[Config], dict],
        text: Callable[[dict], str]) -> None:
    """Measure what a config says, and tell it."""
    try:
        with redirect_stdout(sys.stderr):  # stdout may be for the JSON alone
            # mmengine's log has a stdout of its own
            MMLogger.get_current_instance().setLevel(logging.WARNING)
            result = measure(read_config(args))
    except ValueError as error:
        sys.exit(str(error))
    tell(args, result, text(result))


def main() -> None:
    parser = rounds_parser(__doc__, warmup=3)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision by autocast, with a scaled loss')
    args = parser.parse_args()
    run(
        args, lambda cfg: benchmark(cfg, args.batch, args.rounds, args.warmup,
                                    args.amp),
        lambda result: '\n'.join(f'{name:<18} {value:.4g}'
                                 for name, value in result.items()))


if __name__ == '__main__':
    main()
