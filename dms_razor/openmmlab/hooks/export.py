# Copyright (c) dms_razor contributors. All rights reserved.
"""Writes the subnets that a search finds."""
import os.path as osp
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, Optional, Sequence, Union

from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS

from ...core.budget import format_amount
from ...errors import check_number
from ...network import named_tensors
from ...subnet.export import FILES
from ...subnet.files import check_destination
from ...subnet.timed import told
from ...timing.gate import TOLERANCE
from ..calibration import predict, training_loader
from ..retrain import retrain_config
from .search import dms_of

Budget = Union[float, str]


@HOOKS.register_module()
class ExportSubnetHook(Hook):
    """Exports the searched network to ``work_dir/subnet``.

    At the end of the training, and each time the falling target passes one
    of the ``budgets``: one search gives several networks. Each is projected
    onto its budget; the search itself goes on undisturbed. With an
    ``EMAHook`` the averaged weights are exported, as they are what is
    validated.

    Args:
        out_dir (str): Folder, relative to the runner's ``work_dir``.
            Defaults to ``'subnet'``. A budget adds itself to the name:
            ``subnet_80pct``, ``subnet_2.0G``.
        budgets (Sequence[float | str]): Larger budgets than the target, e.g.
            ``('80%', '60%')``. Defaults to none.
        retrain_base (str, optional): Config whose training recipe the
            retrain config takes, e.g.
            ``'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py'``.
            Defaults to the standard config that the search's own config
            inherits.
        retrain_overrides (dict, optional): Other settings of the retrain
            config, e.g. ``dict(train_dataloader=dict(batch_size=64))``.
        finetune (bool): Whether the retrain config starts from the searched
            weights and not from scratch. Defaults to False.
        bn_batches (int): Training batches of which the subnet takes its
            BatchNorm statistics anew, for a subnet that is used or finetuned
            as it is; 0 leaves those of the supernet. Defaults to 20.
        picture (bool): Whether to draw the structure. Defaults to True.
        measure (bool): Whether a latency that was limited is measured, on
            this machine. Defaults to True.
        tolerance (float): Share that predicted and measured latency may
            differ by before a correction is tried. Defaults to 0.05.
        divisor (int | str, optional): Widths become multiples of it, with
            ``'auto'`` of what the table of latencies shows.
    """

    # After StructureLogHook and before CheckpointHook.
    priority = 'LOW'

    def __init__(self,
                 out_dir: str = 'subnet',
                 budgets: Sequence[Budget] = (),
                 retrain_base: Optional[str] = None,
                 retrain_overrides: Optional[dict] = None,
                 finetune: bool = False,
                 bn_batches: int = 20,
                 picture: bool = True,
                 measure: bool = True,
                 tolerance: float = TOLERANCE,
                 divisor: Union[None, int, str] = None) -> None:
        check_number('bn_batches of ExportSubnetHook', bn_batches, whole=True)
        self.out_dir = out_dir
        self.budgets = tuple(budgets)
        self.retrain_args = dict(
            base=retrain_base,
            overrides=retrain_overrides,
            from_search=finetune)
        self.bn_batches, self.picture = bn_batches, picture
        self.gate = dict(measure=measure, tolerance=tolerance, divisor=divisor)
        self._retrain = None
        self._amounts: Dict[Budget, float] = {}

    def before_train(self, runner: Runner) -> None:
        """Read budgets, folders and retrain config while it is still cheap.

        Raises:
            SubnetError: A folder is no place for an export.
            ValueError: A budget is out of reach.
        """
        search = dms_of(runner).search
        self._amounts = {b: search.budget(b) for b in self.budgets}
        idle = [
            budget for budget, amount in self._amounts.items()
            if not search.target < amount < search.schedule.start
        ]
        if idle:
            raise ValueError(
                f'the budget {idle[0]!r} of ExportSubnetHook does not lie '
                'between the supernet and the target of the search '
                f'({format_amount(search.target)} {search.metric}, which is '
                'exported anyway); leave it out or lower the target')
        self._look_at_folders(runner)
        self._retrain = retrain_config(runner.cfg, **self.retrain_args)

    @master_only
    def _look_at_folders(self, runner: Runner) -> None:
        # No subnet is larger than its supernet; the rest is text and a picture
        size = 5_000_000 + sum(
            tensor.numel() * tensor.element_size()
            for tensor in named_tensors(dms_of(runner).architecture).values())
        for name in (self.out_dir, *map(self._folder, self.budgets)):
            check_destination(osp.join(runner.work_dir, name), FILES, size)

    def _folder(self, budget: Budget) -> str:
        name = (f'{100 * budget:g}pct' if isinstance(budget, float)
                and budget < 1 else str(budget).replace('%', 'pct'))
        return f'{self.out_dir}_{name}'

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs: Optional[dict] = None) -> None:
        """Export the budgets that the target passes with this step."""
        schedule = dms_of(runner).search.schedule
        before, now = schedule(runner.iter), schedule(runner.iter + 1)
        for budget, amount in self._amounts.items():
            if now <= amount < before:
                self.export(runner, self._folder(budget), amount)

    def after_train(self, runner: Runner) -> None:
        """Export the network that was searched for."""
        self.export(runner, self.out_dir)

    @master_only
    def export(self,
               runner: Runner,
               out_dir: str,
               target: Optional[float] = None) -> None:
        """Export one network, on the first rank only.

        Args:
            runner (Runner): The runner.
            out_dir (str): Folder, relative to ``work_dir``.
            target (float, optional): In units of the metric; defaults to the
                search's own.
        """
        with averaged_weights(runner), ExitStack() as stack:
            statistics = {}
            if self.bn_batches:
                statistics = dict(
                    bn_data=stack.enter_context(training_loader(runner)),
                    bn_batches=self.bn_batches,
                    bn_forward=predict)
            export = dms_of(runner).search.export(
                osp.join(runner.work_dir, out_dir),
                target,
                retrain=self._retrain,
                picture=self.picture,
                **self.gate,
                **statistics)
        costs = {
            metric: (cost.get('counted', cost['searched']), cost['supernet'])
            for metric, cost in export.manifest.costs.items()
        }
        runner.logger.info(f'Exported to {export.path}: ' + ', '.join(
            f'{cost:,} {metric} ({cost / whole:.1%})'
            for metric, (cost, whole) in costs.items()))
        if export.report.latency:
            runner.logger.info(told(export.report.latency.to_dict()))


@contextmanager
def averaged_weights(runner: Runner) -> Iterator[None]:
    """The model with the weights of its EMA, where there is one."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in hooks:
        hook._swap_ema_parameters()
    try:
        yield
    finally:
        for hook in hooks:
            hook._swap_ema_parameters()
