# Copyright (c) dms_razor contributors. All rights reserved.
"""The DMS algorithm: a network in which training also searches."""
import copy
from contextlib import nullcontext
from typing import Any, ContextManager, Dict, List, Optional, Sequence, Union

from mmengine.model import BaseModel
from mmrazor.models.algorithms import BaseAlgorithm
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import refuse_beside
from ..masking.attach import unmask
from ..preflight import Preflight
from ..search import Search
from .schedule import SearchSchedule


@MODELS.register_module()
class DMS(BaseAlgorithm):
    """Differentiable Model Scaling of a model of any OpenMMLab package.

    Trains the architecture as its own config says and, beside it, one
    pruning ratio for each unit. The ratios are no parameters: optimizer,
    schedules, clipping, EMA and ``state_dict`` do not see them. They are
    driven by :class:`DMSHook`, which has to be among the ``custom_hooks``.

    Args:
        architecture (dict | BaseModel): The supernet.
        target (float | str): Budget: ``0.5``, ``'50%'``, ``'2.0G'``, 4.1e9.
        metric (str, optional): What it limits, ``'macs'`` (the default),
            ``'params'`` or another registered metric.
        constraints (dict, optional): In place of both, several targets, e.g.
            ``dict(macs='50%', params='2M')``.
        latency_table (str, optional): Where a budget is in ``'latency'``, what
            ``tools/measure_latency.py`` wrote.
        search (dict, optional): Length of the search, in epochs
            (``epochs``, ``width_only_epochs``, ``warmup_epochs``) or in
            iterations (``iters``, …); see :class:`SearchSchedule`. By
            default it is as long as the training.
        mutator (dict | nn.Module, optional): Of type ``DMSMutator``.
        resource_loss (dict | nn.Module, optional): Of type
            ``ResourceConstraintLoss``.
        input_shape (Sequence[int] | int, optional): What MACs are counted
            for. Without it :class:`DMSHook` reads it off the pipelines.
        eval_masks (str): What validation runs, ``'hard'`` (while the target
            falls what the ratios round to, then the subnet as it would be
            exported; the default) or ``'soft'`` (the network that is being
            trained).
        data_preprocessor (dict | nn.Module, optional): Handed on to the
            architecture, which may build batch augmentations into it.
        init_cfg (dict, optional): See mmengine's ``BaseModule``.

    Attributes:
        search (Search): The search; None until :meth:`prepare`, which runs
            at once where ``input_shape`` is given.

    Raises:
        ValueError: If the target is unreadable or out of reach, nothing can
            be pruned, or a pattern of units matches nothing.
    """

    def __init__(self,
                 architecture: Union[BaseModel, Dict],
                 target: Union[None, float, str] = None,
                 metric: Optional[str] = None,
                 constraints: Optional[Dict[str, Union[float, str]]] = None,
                 latency_table: Optional[str] = None,
                 search: Optional[dict] = None,
                 mutator: Union[Dict, nn.Module, None] = None,
                 resource_loss: Union[Dict, nn.Module, None] = None,
                 input_shape: Union[None, int, Sequence[int]] = None,
                 eval_masks: str = 'hard',
                 data_preprocessor: Union[Dict, nn.Module, None] = None,
                 init_cfg: Optional[dict] = None) -> None:
        if eval_masks not in ('hard', 'soft'):
            raise ValueError(f"eval_masks is {eval_masks!r}; use 'hard' or "
                             "'soft'")
        # `module_inplace=True` leaves the modules' inplace flags alone.
        super().__init__(
            build_architecture(architecture, data_preprocessor),
            init_cfg=init_cfg,
            module_inplace=True)
        self.target, self.metric = target, metric
        self.budgets = dict(
            constraints=constraints, latency_table=latency_table)
        self.schedule = SearchSchedule(**(search or {}))
        self.eval_masks = eval_masks
        self.mutator = build_part(mutator, 'DMSMutator')
        self.resource_loss = build_part(resource_loss,
                                        'ResourceConstraintLoss')
        self.search: Optional[Search] = None
        refuse_beside(
            'mutator.input_shape',
            self.mutator.input_shape,
            input_shape=input_shape)
        input_shape = input_shape or self.mutator.input_shape
        if input_shape is not None:
            self.prepare(input_shape)

    # preparation

    def prepare(self, input_shape: Union[int, Sequence[int]]) -> Preflight:
        """Trace the architecture and mask its layers; does nothing twice.

        Args:
            input_shape (Sequence[int] | int): What MACs are counted for.

        Returns:
            Preflight: The space and the target's place in it.
        """
        if self.search is None:
            self.mutator.input_shape = input_shape
            self.search = self.mutator.prepare_from_supernet(
                self.architecture,
                target=self.target,
                metric=self.metric,
                **self.budgets,
                constraint=self.resource_loss,
                fall=self.schedule.fall,
                harden=self.schedule.harden)
        return self.search.preflight()

    def set_length(self,
                   max_iters: int,
                   iters_per_epoch: Optional[int] = None) -> None:
        """Fit the target schedule to the training loop.

        Args:
            max_iters (int): Iterations of the training.
            iters_per_epoch (int, optional): None in a loop without epochs.

        Raises:
            ValueError: If the search does not fit into the training.
        """
        steps = self.schedule.steps(max_iters, iters_per_epoch)
        self.prepared().set_length(steps.total, steps.warmup, steps.width_only)

    def prepared(self) -> Search:
        """The search, or an error that says what it waits for."""
        if self.search is None:
            raise RuntimeError(
                'the DMS algorithm has not been prepared: set model.'
                'input_shape, or put dict(type=\'mmrazor.DMSHook\') into '
                'custom_hooks, which reads it off the pipelines')
        return self.search

    def init_weights(self) -> None:
        """Initialise the plain layers.

        mmengine's initialisers match classes by name, their own and that of
        direct bases only, and would pass over some masked layers.
        """
        unmask(self.architecture)
        super().init_weights()
        if self.search is not None:
            self.search.attach_masks()

    # the three modes of an OpenMMLab model

    def loss(self,
             inputs: Tensor,
             data_samples: Optional[List[Any]] = None) -> Dict[str, Tensor]:
        """The architecture's losses and ``loss_resource`` (paper, eq. 5).

        Args:
            inputs (Tensor): A batch, as the data preprocessor gives it.
            data_samples (list, optional): Its annotations.

        Returns:
            dict[str, Tensor]: The task's losses, untouched, and
            λ_res·L_res, which has a value and no gradient for the weights.

        Raises:
            RuntimeError: If no optimizer drives the ratios.
        """
        search = self.prepared()
        if not search.attached:
            raise RuntimeError(
                'training without DMSHook would leave the ratios alone: put '
                "dict(type='mmrazor.DMSHook') into custom_hooks")
        search.bank.mode = 'soft'
        losses = super().loss(inputs, data_samples)
        losses['loss_resource'] = search.resource_term()
        return losses

    def forward(self,
                inputs: Tensor,
                data_samples: Optional[List[Any]] = None,
                mode: str = 'tensor') -> Any:
        """Losses of the search, or what the evaluated network gives."""
        with nullcontext() if mode == 'loss' else self.evaluated():
            return super().forward(inputs, data_samples, mode)

    def evaluated(self) -> ContextManager:
        """A context in which layers read the masks of evaluation."""
        search = self.search
        if search is None:
            return nullcontext()
        # Choices that somebody set, e.g. an evolution, are not projected.
        projected = (
            self.eval_masks == 'hard' and search.at_target
            and search.bank.mode != 'hard')
        return search.masks('subnet' if projected else self.eval_masks)


# Builds the parts of an algorithm from their configs.


def with_preprocessor(cfg: Dict,
                      data_preprocessor: Union[Dict, nn.Module, None] = None,
                      user: str = 'A search') -> Dict:
    """Copy a model's config, with the data preprocessor that a runner gave.

    Args:
        cfg (dict): The model's config. Its own preprocessor has precedence.
        data_preprocessor (dict | nn.Module, optional): What the runner gave.
        user (str): What needs the config, for the message.

    Returns:
        dict: A deep copy of ``cfg``.

    Raises:
        TypeError: If ``cfg`` is not a config dict with a ``type``.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise TypeError(f'{user} needs the config of a network, a dict with a '
                        f"'type', e.g. cfg=_base_.model; got {cfg!r}.")
    cfg = copy.deepcopy(cfg)
    if data_preprocessor is not None:
        cfg.setdefault('data_preprocessor', data_preprocessor)
    return cfg


def build_architecture(
        architecture: Union[BaseModel, Dict],
        data_preprocessor: Union[Dict, nn.Module, None] = None) -> BaseModel:
    """Build the supernet, with the data preprocessor that is meant for it.

    A runner gives the config's top-level ``data_preprocessor`` to the
    algorithm. Built there, without the architecture's ``train_cfg``, it would
    lose batch augmentations such as mixup; so it is handed on.

    Args:
        architecture (dict | BaseModel): The supernet or its config.
        data_preprocessor (dict | nn.Module, optional): See
            :func:`with_preprocessor`, also for errors.
    """
    if isinstance(architecture, nn.Module):
        if data_preprocessor is not None:
            architecture.data_preprocessor = (
                MODELS.build(data_preprocessor) if isinstance(
                    data_preprocessor, dict) else data_preprocessor)
        return architecture
    if not isinstance(architecture, dict) or 'cfg_path' not in architecture:
        architecture = with_preprocessor(
            architecture, data_preprocessor,
            'A search without a model as its architecture')
    return MODELS.build(architecture)


def build_part(part: Union[Dict, nn.Module, None],
               default_type: str) -> nn.Module:
    """Build a part of the algorithm from its config, if it is not built yet.

    Args:
        part (dict | nn.Module | None): The part or its config.
        default_type (str): The type it has unless the config names one.
    """
    if isinstance(part, nn.Module):
        return part
    config = dict(dict(type=default_type), **(part or {}))
    # The scope is spelled out: default_scope is often another package's.
    if config['type'] in MODELS.module_dict:
        config['type'] = f'mmrazor.{config["type"]}'
    return MODELS.build(config)
