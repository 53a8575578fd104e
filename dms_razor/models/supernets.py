# Copyright (c) dms_razor contributors. All rights reserved.
"""A wider and deeper supernet out of a standard model (paper, sec. A.4.1).

A search starts from a network that is larger than what is wanted. Where a
model family has sizes to choose from (ResNet-152, EfficientNet-B7) a config
names a larger one. MobileNetV2 has none: its number of blocks is a class
attribute. :func:`DMSSupernet` enlarges such a model in the config::

    architecture=dict(
        type='DMSSupernet', cfg=_base_.model, widen=1.5, deepen=2)

The same dict builds the network again when a searched subnet is retrained::

    model=dict(
        type='DMSSubModel', subnet='subnet.json',
        cfg=dict(
            type='DMSSupernet', cfg=_base_.model, widen=1.5, deepen=2))
"""
import copy
import math
from typing import Optional

from mmengine.registry import MODELS
from torch import nn

from . import transformer_recipes  # noqa: F401  (registers its recipes)
from .supernet_recipes import RECIPES, enlarge_class
from .supernet_wiring import output_channels, rewire


# In mmengine's root registry, so that a config finds it under any scope.
@MODELS.register_module()
def DMSSupernet(cfg: dict,
                widen: float = 1.0,
                deepen: float = 1.0,
                part: str = 'backbone',
                data_preprocessor: Optional[dict] = None) -> nn.Module:
    """Build a standard model with more channels and more blocks.

    Every channel number of the backbone is multiplied by ``widen`` and
    rounded the way the backbone's own class rounds; in a transformer this is
    the number of heads, rounded up, which embedding and FFN follow. The
    number of blocks of every stage is multiplied by ``deepen`` and rounded
    up. The input channels of the neck and of the head follow. The classes
    themselves are left as they are: the larger settings belong to the built
    network alone, whose type is the standard class.

    Known are the backbones of mmpretrain that
    :mod:`dms_razor.models.supernet_recipes` lists; a recipe for another one
    is a function registered with ``@recipe('ClassName')``.

    Args:
        cfg (dict): The standard model's config, e.g. ``_base_.model``: a
            model with a ``backbone``, or a bare backbone.
        widen (float): Factor of the channel numbers, above 0. Defaults to 1.
        deepen (float): Factor of the blocks in each stage, above 0. Defaults
            to 1.
        part (str): The key of ``cfg`` that is enlarged. Defaults to
            'backbone'.
        data_preprocessor (dict, optional): Handed on to the model; the
            runner passes it when this is a config's top-level ``model``.

    Returns:
        nn.Module: The plain enlarged network, not initialised from
        ``init_cfg`` yet, as ``MODELS.build`` leaves it.

    Raises:
        TypeError: If ``cfg`` is not a config dict with a ``type``.
        ValueError: If a factor is not positive, the backbone has no recipe,
            or a layer behind the backbone does not fit its output.
    """
    _check(cfg, widen, deepen)
    cfg = copy.deepcopy(cfg)
    if data_preprocessor is not None:
        cfg.setdefault('data_preprocessor', data_preprocessor)
    with MODELS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        if part not in cfg:
            return registry.build(_enlarged(cfg, widen, deepen, registry))
        standard = cfg[part]
        with registry.switch_scope_and_registry(
                standard.get('_scope_')) as inner:
            side = standard.get('img_size')
            before = output_channels(inner.build(standard), part, side)
            cfg[part] = _enlarged(standard, widen, deepen, inner)
            after = output_channels(inner.build(cfg[part]), part, side)
        rewire(cfg, part, before, after)
        return registry.build(cfg)


def _check(cfg: dict, widen: float, deepen: float) -> None:
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise TypeError(
            'DMSSupernet needs the config of a standard model, a dict with a '
            f"'type', e.g. cfg=_base_.model; got {cfg!r}.")
    for name, factor in (('widen', widen), ('deepen', deepen)):
        number = isinstance(factor, (int, float))
        if not number or not math.isfinite(factor) or factor <= 0:
            raise ValueError(
                f'DMSSupernet cannot use {name}={factor!r}: give a number '
                'above 0, e.g. 1.5; 1 leaves the model as it is.')


def _enlarged(cfg: dict, widen: float, deepen: float, registry) -> dict:
    """The config of the enlarged backbone; its ``type`` is a callable."""
    cls = cfg['type']
    if isinstance(cls, str):
        cls = registry.get(cls)
        if cls is None:
            raise ValueError(
                f"DMSSupernet does not find '{cfg['type']}' in the registry "
                f"of scope '{registry.scope}': set `_scope_` in its config or "
                'import the module that registers it (custom_imports).')
    recipe = RECIPES.get(cls.__name__)
    if recipe is None:
        raise ValueError(
            f'DMSSupernet has no recipe to enlarge {cls.__name__}: it knows '
            f"{', '.join(sorted(RECIPES))}. Write the larger sizes in the "
            "model's own config, or register a recipe with "
            f"dms_razor.models.supernet_recipes.recipe('{cls.__name__}').")
    arguments, settings = recipe(cls, cfg, widen, deepen)
    cfg = dict(cfg, **arguments)
    return dict(cfg, type=enlarge_class(cls, settings))
