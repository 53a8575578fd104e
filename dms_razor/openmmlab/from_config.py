# Copyright (c) dms_razor contributors. All rights reserved.
"""What the tools make of a config, without a runner."""
from pathlib import Path
from typing import Optional, Tuple, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint
from mmrazor.registry import MODELS
from torch import nn

from ..core.steps import with_divisor
from ..preflight import Preflight, PreflightError, preflight
from ..space import Space
from .algorithm import DMS, build_architecture, build_part, with_preprocessor
from .checkpoints import check_weights, compare_weights
from .example_input import input_shape_from_config
from .schedule import SearchSchedule


def is_search(cfg: Config) -> bool:
    """Whether a config's model is a DMS algorithm.

    Raises:
        ValueError: If it has no model.
    """
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{cfg.filename or "the config"} has no model; name '
                         'a whole config')
    return 'architecture' in cfg.model


def preflight_of_config(cfg: Config) -> Preflight:
    """Trace a config's network and describe its space.

    Args:
        cfg (Config): Config of a search, or of a plain model, which is shown
            with the default settings of a search and without a target.

    Returns:
        Preflight: A target that cannot be met is told in its ``problem``.

    Raises:
        ValueError: If the config does not say the input size, nothing can be
            pruned, or a pattern of units matches nothing.
        RuntimeError: If the network fails on an input of that size.
    """
    if not is_search(cfg):
        _, space = space_of_config(cfg)
        return preflight(space, total_steps=_steps(cfg, None))
    try:
        report = algorithm_of_config(cfg).search.preflight()
    except PreflightError as error:
        report = error.report
    report.total_steps = _steps(cfg, cfg.model.get('search'))
    return report


def space_of_config(cfg: Config) -> Tuple[nn.Module, Space]:
    """A config's network, not masked, and its space, whatever the budget.

    Args:
        cfg (Config): Config of a search, with its settings of what may be
            removed, or of a plain model, with the default ones.

    Raises:
        ValueError, RuntimeError: As for :func:`preflight_of_config`.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    search = cfg.model if is_search(cfg) else {}
    network = build_architecture(
        search.get('architecture', cfg.model), cfg.get('data_preprocessor'))
    mutator = build_part(search.get('mutator'), 'DMSMutator')
    mutator.input_shape = search.get('input_shape') or mutator.input_shape \
        or input_shape_from_config(cfg)
    # what the device shows is not known yet
    mutator.search_args = with_divisor(mutator.search_args, 1)
    found = mutator.prepare_from_supernet(network)
    return found.close(), found.space


def _steps(cfg: Config, search: Optional[dict]) -> Optional[int]:
    """Steps in which the target falls; None where only data would tell."""
    train_cfg = cfg.get('train_cfg') or {}
    schedule = SearchSchedule(**(search or {}))
    if schedule.by_epoch or 'max_iters' not in train_cfg:
        return None
    steps = schedule.steps(train_cfg['max_iters'])
    return steps.total - steps.warmup


def algorithm_of_config(cfg: Config) -> DMS:
    """Build a search's algorithm, traced and ready.

    Raises:
        ValueError: If the config is no search's.
    """
    if not is_search(cfg):
        raise ValueError(
            f'{cfg.filename or "the config"} describes a plain model, no '
            'search; name the config that the search was run with')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = MODELS.build(
        with_preprocessor(cfg.model, cfg.get('data_preprocessor')))
    if model.search is None:
        model.prepare(input_shape_from_config(cfg))
    return model


def load_search(model: DMS, checkpoint: Union[str, Path]) -> DMS:
    """Put a search's checkpoint into its algorithm.

    Args:
        model (DMS): From :func:`algorithm_of_config`.
        checkpoint (str | Path): File that the search saved.

    Returns:
        DMS: The same model, with weights, ratios and importances.

    Raises:
        ValueError: If it is not the checkpoint of a search of this network.
    """
    name = str(checkpoint)
    state = _load_checkpoint(name, map_location='cpu')
    if not isinstance(state, dict) or 'dms' not in state:
        raise ValueError(
            f'{name} holds no search; give a checkpoint that a training with '
            'DMSHook has saved')
    check_weights(compare_weights(state, model), name)
    model.load_state_dict(state['state_dict'])
    model.search.load_state_dict(state['dms'], with_changes=True)
    return model
