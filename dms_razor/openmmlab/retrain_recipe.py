# Copyright (c) dms_razor contributors. All rights reserved.
"""Train one config's network the way another config trains its own.

A standard model config mixes two things: what the network is (depth, widths,
heads) and how it is trained (batch augmentation, losses, drop rates). A
subnet keeps its supernet's network whatever recipe it is retrained with, so
of the recipe's model only the second kind of settings is taken.
"""
import copy
from typing import Any, Dict, List, Optional, Tuple

from mmengine.registry import MODELS

from .recipes import constructor_arguments

AUGMENTS = ('train_cfg', 'test_cfg', 'data_preprocessor')
"""Settings of a whole model that belong to the recipe."""

TRAINING = ('drop_path_rate', 'drop_path', 'drop_rate', 'drop_out_rate',
            'dropout', 'dropout_rate', 'dropout_ratio', 'attn_drop_rate',
            'proj_drop_rate', 'norm_eval', 'frozen_stages', 'with_cp', 'topk',
            'cal_acc', 'init_cfg')
"""Settings of a backbone, neck or head that do not change what it is."""

BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'MMSyncBN')
"""Batch normalisations that differ in training alone."""


def merge_recipe(architecture: Dict,
                 recipe: Dict,
                 scope: Optional[str] = None) -> Tuple[Dict, List[str]]:
    """Put another model's training settings onto an architecture.

    Settings that the recipe does not name go back to their class's defaults
    where both models use the same class, since the recipe was made with
    these.

    Args:
        architecture (dict): Model config of the supernet.
        recipe (dict): Model config of the recipe.
        scope (str, optional): The recipe's ``default_scope``, in which class
            names are looked up.

    Returns:
        tuple[dict, list[str]]: The merged model config, and what of the
        recipe could not be taken over, one phrase each.
    """
    merged = copy.deepcopy(architecture)
    model = merged
    while 'cfg' in model and isinstance(model['cfg'], dict):
        model = model['cfg']  # a function around a standard model's config
    left: List[str] = []
    same = model.get('type') == recipe.get('type')
    for name in AUGMENTS:
        if name in recipe:
            model[name] = copy.deepcopy(recipe[name])
        elif same:
            model.pop(name, None)
    for name, part in recipe.items():
        if name not in AUGMENTS:
            _merge_part(model.get(name), part, name, scope, left)
    return merged, left


def without_pretrained(config: Any) -> Any:
    """Copy a model config without references to pretrained weights.

    A pretrained supernet's weights do not fit a subnet.

    Args:
        config (Any): A model config, or a part of one.

    Returns:
        Any: A copy without ``pretrained`` and without ``init_cfg`` of type
        ``'Pretrained'``, at any depth.
    """
    if isinstance(config, dict):
        # an explicit init_cfg=None stays: "not the class's default"
        return {
            key: without_pretrained(value)
            for key, value in config.items()
            if not (key == 'pretrained' and isinstance(value, str))
            and not (key == 'init_cfg' and _pretrained(value))
        }
    if isinstance(config, (list, tuple)):
        return type(config)(
            without_pretrained(part) for part in config
            if not isinstance(part, dict) or not _pretrained(part))
    return copy.deepcopy(config)


def _pretrained(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` is of pretrained weights and nothing else."""
    if isinstance(init_cfg, (list, tuple)):
        return all(map(_pretrained, init_cfg))
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'


def _merge_part(target: Any, recipe: Any, path: str, scope: Optional[str],
                left: List[str]) -> None:
    """Merge one part (backbone, neck, head, …) in place."""
    if isinstance(target, (list, tuple)) and isinstance(recipe, type(target)):
        for number, pair in enumerate(zip(target, recipe)):
            _merge_part(*pair, f'{path}.{number}', scope, left)
    if not isinstance(target, dict) or not isinstance(recipe, dict):
        return
    same = target.get('type') == recipe.get('type')
    for name in TRAINING:
        if name in target and name not in recipe and same:
            del target[name]
    for name, value in recipe.items():
        if name in target and (name == 'loss' or name.startswith('loss_')):
            target[name] = copy.deepcopy(value)
        elif name in TRAINING:
            if same or name in target or name in _arguments(target, scope):
                target[name] = copy.deepcopy(value)
            else:
                left.append(f'{path}.{name}={value!r}: {target.get("type")} '
                            'has no such argument')
        elif name == 'norm_cfg':
            _merge_norm(target, value, scope)
        else:
            _merge_part(target.get(name), value, f'{path}.{name}', scope, left)


def _merge_norm(target: Dict, recipe: Any, scope: Optional[str]) -> None:
    """Take over how a batch normalisation is trained, not what it is."""
    current = target.get('norm_cfg')
    if current is None:
        current = getattr(
            _arguments(target, scope).get('norm_cfg'), 'default', None)
    if all(
            isinstance(norm, dict) and norm.get('type') in BATCH_NORMS
            for norm in (current, recipe)):
        trained = {
            key: recipe[key]
            for key in ('type', 'momentum', 'requires_grad') if key in recipe
        }
        target['norm_cfg'] = {**copy.deepcopy(current), **trained}


def _arguments(config: Dict, scope: Optional[str]) -> Dict:
    """List the arguments of the class that a config names."""
    kind = config.get('type')
    if isinstance(kind, str):
        scope = config.get('_scope_', scope)
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    return constructor_arguments(kind) if isinstance(kind, type) else {}
