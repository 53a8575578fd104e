# Copyright (c) dms_razor contributors. All rights reserved.
"""How transformers and ConvNeXt are made wider and deeper.

Widening multiplies the number of attention heads and rounds it up; the size
of a head stays, so embedding and FFN follow the heads. A network without
heads is widened in multiples of 8 channels.
"""
import math
from typing import Tuple

from .supernet_recipes import argument, blocks, multiple_of_8, recipe


def _arch(cls: type, cfg: dict) -> dict:
    """The dict of sizes that ``arch`` names or is."""
    arch = argument(cls, cfg, 'arch')
    if isinstance(arch, dict):
        return dict(arch)
    table = getattr(cls, 'arch_zoo', None) or cls.arch_settings
    for names, sizes in table.items():
        if arch.lower() == names if isinstance(names,
                                               str) else arch.lower() in names:
            return dict(sizes)
    raise ValueError(f"DMSSupernet cannot enlarge {cls.__name__} of arch "
                     f"'{arch}': it has no sizes of that name.")


def _more(number: int, factor: float) -> int:
    # not ceil(3 * 1.3333334): the factor is what a person meant by 4 / 3
    return math.ceil(round(number * factor, 6))


def _out_indices(cls: type, cfg: dict, number: int, deepen: float):
    """Layers that are returned, at the same share of the depth as before.

    A plain number would now stand for a layer in the middle.
    """
    given = argument(cls, cfg, 'out_indices')
    if isinstance(given, int):
        given = [given]
    return [
        index if index == -1 else blocks(index % number + 1, deepen) - 1
        for index in given
    ]


def _one_config(cls: type, cfg: dict, name: str) -> None:
    """A list with a config for each layer cannot grow with the layers."""
    if isinstance(cfg.get(name), (list, tuple)):
        raise ValueError(
            f'DMSSupernet cannot deepen {cls.__name__}: its {name} has a '
            'config for each layer. Give one dict for all layers, or the '
            'deeper network itself as the architecture.')


@recipe('VisionTransformer', 'DistilledVisionTransformer', 'DeiT3', 'BEiTViT')
def vision_transformer(cls: type, cfg: dict, widen: float,
                       deepen: float) -> Tuple[dict, dict]:
    """``arch``: heads of the same size, embedding, FFN, ``num_layers``."""
    arch = _arch(cls, cfg)
    changed = {}
    if deepen != 1:
        _one_config(cls, cfg, 'layer_cfgs')
        changed['out_indices'] = _out_indices(cls, cfg, arch['num_layers'],
                                              deepen)
    heads, dims = arch['num_heads'], arch['embed_dims']
    arch['num_heads'] = _more(heads, widen)
    arch['embed_dims'] = dims // heads * arch['num_heads']
    arch['feedforward_channels'] = round(arch['feedforward_channels'] *
                                         arch['embed_dims'] / dims)
    arch['num_layers'] = blocks(arch['num_layers'], deepen)
    return dict(changed, arch=arch), {}


@recipe('SwinTransformer', 'SwinTransformerV2')
def swin(cls: type, cfg: dict, widen: float,
         deepen: float) -> Tuple[dict, dict]:
    """``arch``: heads of the same size in every stage, ``depths``."""
    arch = _arch(cls, cfg)
    heads = arch['num_heads']
    if widen != 1 and any(number % heads[0] for number in heads):
        raise ValueError(
            f'DMSSupernet cannot widen {cls.__name__} with {heads} heads: '
            'the size of a head would not stay. Give the wider arch itself.')
    first = _more(heads[0], widen)
    arch['embed_dims'] = arch['embed_dims'] // heads[0] * first
    arch['num_heads'] = [number // heads[0] * first for number in heads]
    arch['depths'] = [blocks(number, deepen) for number in arch['depths']]
    return dict(arch=arch), {}


@recipe('ConvNeXt')
def convnext(cls: type, cfg: dict, widen: float,
             deepen: float) -> Tuple[dict, dict]:
    """``arch``: ``channels`` in multiples of 8, ``depths``."""
    arch = _arch(cls, cfg)
    if widen != 1:
        arch['channels'] = [
            multiple_of_8(number * widen) for number in arch['channels']
        ]
    arch['depths'] = [blocks(number, deepen) for number in arch['depths']]
    return dict(arch=arch), {}
