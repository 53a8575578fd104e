# Copyright (c) dms_razor contributors. All rights reserved.
"""A wider and deeper supernet out of a standard model (paper, sec. A.4.1).

A search starts from a network that is larger than what is wanted. Where a
model family has sizes to choose from (ResNet-152, EfficientNet-B7) a config
names a larger one. MobileNetV2 has none: its number of blocks is a class
attribute. :func:`DMSSupernet` enlarges such a model in the config, for the
search and again as the ``cfg`` of a ``DMSSubModel``.
"""
import math
from typing import Any, Optional, Sequence, Tuple, Union

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.utils._pytree import tree_flatten

from .algorithm import with_preprocessor
from .recipes import RECIPES, enlarge_class


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
    :mod:`dms_razor.openmmlab.recipes` lists; a recipe for another one
    is a function registered with ``@recipe('ClassName')``.

    Args:
        cfg (dict): The standard model's config, e.g. ``_base_.model``: a
            model with a ``backbone``, or a bare backbone.
        widen (float): Factor of the channel numbers, above 0. Defaults to 1.
        deepen (float): Factor of the blocks in each stage, above 0. Defaults
            to 1.
        part (str): The key of ``cfg`` that is enlarged. Defaults to
            'backbone'.
        data_preprocessor (dict, optional): Handed on to the model.

    Returns:
        nn.Module: The plain enlarged network, not initialised from
        ``init_cfg`` yet, as ``MODELS.build`` leaves it.

    Raises:
        TypeError: If ``cfg`` is not a config dict with a ``type``.
        ValueError: If a factor is not positive, the backbone has no recipe,
            or a layer behind the backbone does not fit its output.
    """
    cfg = with_preprocessor(cfg, data_preprocessor, 'DMSSupernet')
    for name, factor in (('widen', widen), ('deepen', deepen)):
        if not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
            raise ValueError(
                f'DMSSupernet cannot use {name}={factor!r}: give a number '
                'above 0, e.g. 1.5; 1 leaves the model as it is.')
    with MODELS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        if part not in cfg:
            return registry.build(_enlarged(cfg, widen, deepen, registry))
        standard = cfg[part]
        with registry.switch_scope_and_registry(
                standard.get('_scope_')) as inner:
            side = standard.get('img_size')
            before = output_channels(inner.build(standard), part, side)
            cfg[part] = _enlarged(standard, widen, deepen, inner)
            rewire(cfg, part, before,
                   output_channels(inner.build(cfg[part]), part, side))
        return registry.build(cfg)


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
            f"dms_razor.openmmlab.recipes.recipe('{cls.__name__}').")
    arguments, settings = recipe(cls, cfg, widen, deepen)
    return {**cfg, **arguments, 'type': enlarge_class(cls, settings)}


FOLLOWERS = ('neck', 'head', 'bbox_head', 'rpn_head', 'decode_head',
             'auxiliary_head')
"""What may read a backbone, in the order in which data flows."""


def output_channels(
        backbone: nn.Module,
        name: str,
        side: Union[None, int, Sequence[int]] = None) -> Tuple[int, ...]:
    """The channels of each of a backbone's outputs, run on the meta device.

    An output may be a group of tensors of the same width, such as the class
    token and the distillation token of a distilled transformer.

    Args:
        backbone (nn.Module): A backbone of its own, which is used up.
        name (str): What error messages call it.
        side (int | Sequence[int], optional): Image size that its config
            names; not every backbone remembers it. Defaults to the backbone's
            ``img_size``, else 224.

    Returns:
        tuple[int]: Sizes of the channel axis, in the order of the outputs.

    Raises:
        ValueError: If the outputs are not tensors with a channel axis.
    """
    backbone = backbone.to('meta')
    backbone.eval()  # not chained: mmpretrain's eval() returns None
    channels = next(
        (layer.in_channels
         for layer in backbone.modules() if isinstance(layer, nn.Conv2d)), 3)
    # windows and position tables want the size that they are made for
    side = side or getattr(backbone, 'img_size', 224)
    side = (side, side) if isinstance(side, int) else tuple(side)
    with torch.no_grad():
        outputs = backbone(torch.empty(1, channels, *side, device='meta'))
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs, )
    found = [_channels(output) for output in outputs]
    if None in found:
        raise ValueError(
            f'DMSSupernet cannot read the output channels of the {name} '
            f'{type(backbone).__name__}: output {found.index(None)} is '
            'neither a tensor nor a group of tensors of one width. '
            'Write the wider neck and head into the config by hand.')
    return tuple(found)


def _channels(output: Any) -> Optional[int]:
    """Width of one output, None if it has no single one."""
    tensors = tree_flatten(output)[0]
    if not all(isinstance(x, torch.Tensor) and x.ndim > 1 for x in tensors):
        return None
    # (B, tokens, C) of transformers; else (B, C) or (B, C, H, W)
    widths = {x.shape[-1] if x.ndim == 3 else x.shape[1] for x in tensors}
    return widths.pop() if len(widths) == 1 else None


def rewire(cfg: dict, part: str, before: Tuple[int, ...],
           after: Tuple[int, ...]) -> None:
    """Set ``in_channels`` of what reads the backbone, in place.

    The first of neck and heads that has ``in_channels`` reads the backbone;
    layers behind a neck with channels of its own are left as they are.

    Args:
        cfg (dict): The model's config.
        part (str): The key of the enlarged part, for messages.
        before (tuple[int]): The backbone's output channels as configured.
        after (tuple[int]): Those of the enlarged backbone.

    Raises:
        ValueError: If a layer's ``in_channels`` is neither the last of
            ``before`` nor all of them.
    """
    for name in FOLLOWERS:
        layer = cfg.get(name)
        if not isinstance(layer, dict) or 'in_channels' not in layer:
            continue
        wanted = layer['in_channels']
        if isinstance(wanted, (list, tuple)) and tuple(wanted) == before:
            layer['in_channels'] = list(after)
        elif wanted in before:
            layer['in_channels'] = after[before.index(wanted)]
        else:
            raise ValueError(
                f"DMSSupernet cannot widen {name}: its in_channels={wanted} "
                f'does not fit the output of the {part}, {list(before)}. '
                f'Correct the config of the {name}.')
        if name == 'neck':
            return
