# Copyright (c) dms_razor contributors. All rights reserved.
"""Time one training step of several methods on one network, in one run.

plain         the supernet
search        the same under a search, as the config says
activations   the same search's masks, one each element, multiplied to what
              layers with batch norm give instead of to weights
group_fisher  MMRazor's GroupFisherAlgorithm, its importance of every step
dmcp          MMRazor's DMCP, as its ResNet-50 config has it before the
              architecture is trained: four subnets a step

All train on the same random images with the config's optimizer. In a round
each method in turn has its step between two plain ones, before which a plain
one puts memory in order after the method before; ratios are medians over the
rounds. MMRazor traces convolutional classifiers alone.

JSON: for each method ratio (its step over the plain ones around it),
control_ratio (the plain one after it over that before) and saved_bytes_ratio
(what one backward pass keeps; null of MMRazor's steps); plain_s.
"""
import copy
import statistics
from typing import Any, Callable, Dict, List

import torch
from benchmark_overhead import Side, make_sides, rounds_parser, run, seconds
from mmengine.config import Config
from mmengine.logging import MessageHub
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


def mutator(plain: Side, name: str, **options: Any) -> Dict[str, Any]:
    """The channel mutator of a method of MMRazor, with options of its units.

    MMRazor's own example input of a classifier needs a class of mmcls that
    mmpretrain has no more; that of any model does.
    """
    images: Tensor = plain.batch['inputs']
    example = dict(
        type='DefaultMMDemoInput', input_shape=[1, *images.shape[1:]])
    return dict(
        type=f'mmrazor.{name}ChannelMutator',
        parse_cfg=dict(
            type='ChannelAnalyzer', tracer_type='FxTracer',
            demo_input=example),
        channel_unit_cfg=dict(type=f'{name}ChannelUnit', default_args=options))


def algorithm(plain: Side, name: str, **settings: Any) -> nn.Module:
    """An algorithm of MMRazor on a copy of the network."""
    return MODELS.build(
        dict(
            _scope_='mmrazor',
            type=f'mmrazor.{name}',
            architecture=copy.deepcopy(plain.model),
            **settings))


def group_fisher(plain: Side, cfg: Config) -> Whole:
    """MMRazor's GroupFisher on the same network."""
    made = algorithm(
        plain,
        'GroupFisherAlgorithm',
        interval=25,
        mutator=mutator(plain, 'GroupFisher', normalization_type='act'))
    return Whole(made,
                 build_optim_wrapper(made, copy.deepcopy(cfg.optim_wrapper)),
                 plain.batch)


def dmcp(plain: Side, cfg: Config) -> Whole:
    """MMRazor's DMCP on the same network."""
    recorder = dict(fc=dict(type='ModuleOutputs', source='head.fc'))
    made = algorithm(
        plain,
        'DMCP',
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
        mutator_cfg=mutator(plain, 'DMCP', choice_mode='number'))
    weights = build_optim_wrapper(made.architecture,
                                  copy.deepcopy(cfg.optim_wrapper))
    ratios = OptimWrapper(torch.optim.Adam(made.mutator.parameters(), lr=1e-3))
    return Whole(made, OptimWrapperDict(architecture=weights, mutator=ratios),
                 plain.batch)


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
    times: Dict[str, List[tuple]] = {name: [] for name in sides}
    for _ in range(warmup + rounds):
        for name, side in sides.items():
            plain.step()
            times[name].append((plain.step(), side.step(), plain.step()))
    times = {name: rows[warmup:] for name, rows in times.items()}
    result: Dict[str, Any] = dict(
        plain_s=statistics.median(first for rows in times.values()
                                  for first, _, _ in rows))
    for name, side in sides.items():
        saved = side.saved_bytes() / plain.saved_bytes() if isinstance(
            side, Side) else None
        result[name] = dict(
            ratio=statistics.median(2 * own / (first + last)
                                    for first, own, last in times[name]),
            control_ratio=statistics.median(last / first
                                            for first, _, last in times[name]),
            saved_bytes_ratio=saved)
    return result


def text(result: Dict[str, Any]) -> str:
    """The result, a line each method."""
    lines = [f'plain         {result["plain_s"]:.3g} s a step']
    for name in METHODS:
        if name in result:
            own = result[name]
            saved = own['saved_bytes_ratio']
            lines.append(f'{name:<13} {own["ratio"]:.3f} x, control '
                         f'{own["control_ratio"]:.3f}' +
                         ('' if saved is
                          None else f', kept for backward {saved:.3f} x'))
    return '\n'.join(lines)


def main() -> None:
    parser = rounds_parser(__doc__, warmup=2)
    parser.add_argument(
        '--methods', nargs='+', choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    run(
        args, lambda cfg: benchmark(cfg, args.methods, args.batch, args.rounds,
                                    args.warmup), text)


if __name__ == '__main__':
    main()
