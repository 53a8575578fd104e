# Copyright (c) dms_razor contributors. All rights reserved.
"""Fits neck and head to a backbone whose output channels have changed."""
from typing import Any, Optional, Sequence, Tuple, Union

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

# in the order in which data flows through an OpenMMLab model
FOLLOWERS = ('neck', 'head', 'bbox_head', 'rpn_head', 'decode_head',
             'auxiliary_head')


def output_channels(
        backbone: nn.Module,
        name: str,
        side: Union[None, int, Sequence[int]] = None) -> Tuple[int, ...]:
    """The channels of each of a backbone's outputs.

    The backbone runs once on the meta device, which computes shapes and no
    values. An output may be a group of tensors of the same width, such as the
    class token and the distillation token of a distilled transformer.

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
