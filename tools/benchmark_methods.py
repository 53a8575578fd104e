# Copyright (c) dms_razor contributors. All rights reserved.
"""Time one training step of several methods on one network, in one run.

plain         the supernet
search        the same under a search, as the config says
activations   the same search's masks, one each element, multiplied to what
              layers with batch norm give instead of to weights
group_fisher  MMRazor's GroupFisherAlgorithm, its importance of every step
dmcp          MMRazor's DMCP, as its ResNet-50 config has it before the
              architecture is trained: four subnets a step

All train on the same random images with the config's optimizer. A round is
plain, the others in turn, plain; ratios are medians over the rounds. MMRazor
traces convolutional classifiers alone.

JSON: for each method ratio (its step over the plain ones of the round) and
saved_bytes_ratio (what one backward pass keeps; null of MMRazor's steps);
control_ratio, the second plain step over the first; plain_s.
"""
import argparse
import copy
import logging
import statistics
import sys
from contextlib import redirect_stdout
from typing import Any, Callable, Dict, List

import torch
from _launch import at_least, config_parser, read_config, tell
from benchmark_overhead import Side, make_sides, seconds
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmrazor.registry import MODELS
from torch import Tensor, nn

import mmrazor.implementations.pruning.group_fisher  # noqa: F401  isort: skip

METHODS = ('search', 'activations', 'group_fisher', 'dmcp')


def masked_activations(plain: Side, cfg: Config) -> Side:
    """A copy in which every batch norm's result is multiplied by masks."""
    model = copy.deepcopy(plain.model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.mask = nn.Parameter(torch.full_like(norm.weight, .9))
        norm.register_forward_hook(
            lambda norm, args, out: out * norm.mask[:, None, None])
    return Side(model, cfg, plain.batch)


class Whole:
    """An algorithm of MMRazor with a step of its own.

    Args:
        algorithm (nn.Module): The algorithm.
        optim_wrapper (OptimWrapper | OptimWrapperDict): What its step takes.
        batch (dict): Images and data samples, preprocessed.
    """

    def __init__(self, algorithm: nn.Module, optim_wrapper: Any,
                 batch: Dict[str, Any]) -> None:
        self.algorithm, self.batch = algorithm.train(), batch
        self.optim_wrapper = optim_wrapper

    def step(self) -> float:
        """Train one step; returns the seconds it took."""
        MessageHub.get_current_instance().update_info('iter', 1)
        return seconds(lambda: self.algorithm.train_step(
            dict(self.batch), self.optim_wrapper))


def mmrazor_parts(shape: List[int], unit: Dict[str, Any]) -> Dict[str, Any]:
    """Settings of a mutator of MMRazor.

    Its own example input of a classifier needs a class of mmcls that
    mmpretrain has no more; that of any model does.
    """
    images = dict(type='DefaultMMDemoInput', input_shape=shape)
    return dict(
        parse_cfg=dict(
            type='ChannelAnalyzer', tracer_type='FxTracer', demo_input=images),
        channel_unit_cfg=unit)


def group_fisher(plain: Side, cfg: Config) -> Whole:
    """MMRazor's GroupFisher on the same network."""
    algorithm = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='mmrazor.GroupFisherAlgorithm',
            architecture=copy.deepcopy(plain.model),
            interval=25,
            mutator=dict(
                type='GroupFisherChannelMutator',
                **mmrazor_parts(
                    _shape(plain),
                    dict(
                        type='GroupFisherChannelUnit',
                        default_args=dict(normalization_type='act'))))))
    optim_wrapper = build_optim_wrapper(algorithm,
                                        copy.deepcopy(cfg.optim_wrapper))
    return Whole(algorithm, optim_wrapper, plain.batch)


def dmcp(plain: Side, cfg: Config) -> Whole:
    """MMRazor's DMCP on the same network."""
    recorder = dict(fc=dict(type='ModuleOutputs', source='head.fc'))
    algorithm = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='mmrazor.DMCP',
            architecture=copy.deepcopy(plain.model),
            strategy=['max', 'min', 'scheduled_random', 'arch_random'],
            distiller=dict(
                type='ConfigurableDistiller',
                teacher_recorders=recorder,
                student_recorders=copy.deepcopy(recorder),
                distill_losses=dict(loss_kl=dict(type='KLDivergence')),
                loss_forward_mappings=dict(
                    loss_kl=dict(
                        preds_S=dict(recorder='fc', from_student=True),
                        preds_T=dict(recorder='fc', from_student=False)))),
            mutator_cfg=dict(
                type='DMCPChannelMutator',
                **mmrazor_parts(
                    _shape(plain),
                    dict(
                        type='DMCPChannelUnit',
                        default_args=dict(choice_mode='number'))))))
    weights = build_optim_wrapper(algorithm.architecture,
                                  copy.deepcopy(cfg.optim_wrapper))
    ratios = OptimWrapper(
        torch.optim.Adam(algorithm.mutator.parameters(), lr=1e-3))
    return Whole(algorithm,
                 OptimWrapperDict(architecture=weights, mutator=ratios),
                 plain.batch)


def _shape(plain: Side) -> List[int]:
    images: Tensor = plain.batch['inputs']
    return [1, *images.shape[1:]]


MAKE: Dict[str, Callable[[Side, Config], Any]] = dict(
    activations=masked_activations, group_fisher=group_fisher, dmcp=dmcp)


def benchmark(cfg: Config, methods: List[str], batch: int, rounds: int,
              warmup: int) -> Dict[str, Any]:
    """Run the rounds; see the module's docstring for the keys."""
    search, plain = make_sides(cfg, batch)
    sides = {
        name: search if name == 'search' else MAKE[name](plain, cfg)
        for name in methods
    }
    times = []
    for _ in range(warmup + rounds):
        first = plain.step()
        others = [side.step() for side in sides.values()]
        times.append((first, *others, plain.step()))
    times = times[warmup:]
    result: Dict[str, Any] = dict(
        plain_s=statistics.median(row[0] for row in times),
        control_ratio=statistics.median(row[-1] / row[0] for row in times))
    for number, (name, side) in enumerate(sides.items(), 1):
        saved = side.saved_bytes() / plain.saved_bytes() if isinstance(
            side, Side) else None
        result[name] = dict(
            ratio=statistics.median(2 * row[number] / (row[0] + row[-1])
                                    for row in times),
            saved_bytes_ratio=saved)
    return result


def text(result: Dict[str, Any]) -> str:
    """The result, a line each method."""
    lines = [
        f'plain         {result["plain_s"]:.3g} s a step, '
        f'control {result["control_ratio"]:.3f}'
    ]
    for name in METHODS:
        if name in result:
            saved = result[name]['saved_bytes_ratio']
            lines.append(f'{name:<13} {result[name]["ratio"]:.3f} x' + (
                '' if saved is None else f', kept for backward {saved:.3f} x'))
    return '\n'.join(lines)


def parse_args() -> argparse.Namespace:
    parser = config_parser(
        __doc__, 'config of a search of a classifier', as_json=True)
    parser.add_argument(
        '--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument(
        '--batch',
        type=at_least(1, 'give at least 1'),
        default=8,
        help='batch size')
    parser.add_argument(
        '--rounds',
        type=at_least(1, 'give at least 1'),
        default=20,
        help='20 by default')
    parser.add_argument(
        '--warmup',
        type=at_least(0, 'give at least 0'),
        default=2,
        help='rounds that do not count')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        with redirect_stdout(sys.stderr):  # stdout may be for the JSON alone
            # mmengine's log has a stdout of its own
            MMLogger.get_current_instance().setLevel(logging.WARNING)
            result = benchmark(
                read_config(args), args.methods, args.batch, args.rounds,
                args.warmup)
    except ValueError as error:
        sys.exit(str(error))
    tell(args, result, text(result))


if __name__ == '__main__':
    main()
