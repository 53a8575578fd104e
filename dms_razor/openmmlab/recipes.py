# Copyright (c) dms_razor contributors. All rights reserved.
"""How each backbone class is made wider and deeper.

A recipe is a function ``(cls, cfg, widen, deepen) -> (arguments, settings)``:
the constructor arguments that change, and the class attributes that one
instance has to see with other values. Widening a transformer multiplies the
number of attention heads and rounds it up; the size of a head stays, so
embedding and FFN follow the heads. A network without heads is widened in
multiples of 8 channels.
"""
import copy
import inspect
import math
from typing import Callable, Dict, Tuple

from torch import nn

from ..core.registry import Registry

RECIPES = Registry('recipe to enlarge a backbone')
recipe = RECIPES.register
"""Register a recipe for the backbone classes of these names.

Args:
    *names (str): Class names, as in a config's ``type``.

Returns:
    Callable: A decorator for a function ``(cls, cfg, widen, deepen)`` that
    returns the two dicts ``(arguments, settings)``.
"""


def enlarge_class(cls: type, settings: dict) -> Callable[..., nn.Module]:
    """A constructor of ``cls`` for instances with settings of their own.

    The settings are put on the instance before ``cls.__init__`` reads them.
    A subclass would do as well, but its instances would have a type that no
    config and no pickle can name.

    Args:
        cls (type): The backbone's class; it is not changed.
        settings (dict): Attributes that shadow those of the class.

    Returns:
        Callable: Takes the arguments of ``cls``.
    """

    def construct(*args, **kwargs) -> nn.Module:
        module = cls.__new__(cls)
        # nn.Module.__setattr__ works only after __init__
        for name, value in settings.items():
            object.__setattr__(module, name, copy.deepcopy(value))
        module.__init__(*args, **kwargs)
        return module

    return construct


def constructor_arguments(cls: type) -> Dict[str, inspect.Parameter]:
    """All arguments of a class by name, those it hands on as ``**kwargs`` too.
    """
    arguments: Dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if '__init__' in vars(base):
            own = inspect.signature(base.__init__).parameters
            arguments = {**own, **arguments}
            # **kwargs go to the next class in line
            if not any(part.kind == part.VAR_KEYWORD for part in own.values()):
                break
    return arguments


def argument(cls: type, cfg: dict, name: str):
    """The value of a constructor argument: the config's, else the default."""
    arguments = constructor_arguments(cls)
    if name not in cfg and name not in arguments:
        raise ValueError(f'{cls.__name__} has no argument {name!r}, which its '
                         'recipe for DMSSupernet changes.')
    return cfg[name] if name in cfg else arguments[name].default


def blocks(number: int, deepen: float) -> int:
    """``number`` blocks or heads times a factor, rounded up, at least 1."""
    # not ceil(2 * 1.1000000001): the factor is a decimal that a person wrote
    return max(1, math.ceil(round(number * deepen, 6)))


@recipe('ResNet', 'ResNet_CIFAR', 'ResNetV1c', 'ResNetV1d', 'SEResNet')
def resnet(cls: type, cfg: dict, widen: float,
           deepen: float) -> Tuple[dict, dict]:
    """``stem_channels`` and ``base_channels``; ``arch_settings[depth]``.

    Channel numbers are rounded to a multiple of 8, so that the stages keep
    doubling and the squeeze of SE layers stays whole.
    """
    arguments = {}
    for name in ('stem_channels', 'base_channels'):
        channels = argument(cls, cfg, name)
        # MMDetection's stem_channels=None means base_channels
        if widen != 1 and channels is not None:
            arguments[name] = multiple_of_8(channels * widen)
    depth = cfg.get('depth')
    if depth not in cls.arch_settings:
        raise ValueError(
            f'DMSSupernet cannot deepen {cls.__name__} of depth {depth}: '
            f'choose one of {sorted(cls.arch_settings)}.')
    block, numbers = cls.arch_settings[depth]
    return arguments, dict(
        arch_settings={
            **cls.arch_settings, depth: (block,
                                         tuple(
                                             blocks(number, deepen)
                                             for number in numbers))
        })


@recipe('ResNeXt', 'SEResNeXt')
def resnext(cls: type, cfg: dict, widen: float,
            deepen: float) -> Tuple[dict, dict]:
    """As ResNet, and ``width_per_group``; the number of groups stays."""
    arguments, settings = resnet(cls, cfg, widen, deepen)
    if widen != 1:
        arguments['width_per_group'] = max(
            1, round(argument(cls, cfg, 'width_per_group') * widen))
    return arguments, settings


@recipe('MobileNetV2')
def mobilenet_v2(cls: type, cfg: dict, widen: float,
                 deepen: float) -> Tuple[dict, dict]:
    """``widen_factor``; the third number of each row of ``arch_settings``."""
    settings = [[expand, channels,
                 blocks(number, deepen), stride]
                for expand, channels, number, stride in cls.arch_settings]
    return (dict(widen_factor=argument(cls, cfg, 'widen_factor') * widen),
            dict(arch_settings=settings))


@recipe('EfficientNet')
def efficientnet(cls: type, cfg: dict, widen: float,
                 deepen: float) -> Tuple[dict, dict]:
    """The width and depth factors of ``arch_settings[arch]``."""
    arch = argument(cls, cfg, 'arch')
    if arch not in cls.arch_settings:
        raise ValueError(
            f"DMSSupernet cannot enlarge EfficientNet of arch '{arch}': "
            f'choose one of {sorted(cls.arch_settings)}.')
    width, depth, resolution = cls.arch_settings[arch]
    return {}, dict(arch_settings={
        **cls.arch_settings, arch: (width * widen, depth * deepen, resolution)
    })


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8."""
    return max(8, int(channels / 8 + 0.5) * 8)


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


@recipe('VisionTransformer', 'DistilledVisionTransformer', 'DeiT3', 'BEiTViT')
def vision_transformer(cls: type, cfg: dict, widen: float,
                       deepen: float) -> Tuple[dict, dict]:
    """``arch``: heads of the same size, embedding, FFN, ``num_layers``."""
    arch = _arch(cls, cfg)
    changed, number = {}, arch['num_layers']
    if deepen != 1:
        if isinstance(cfg.get('layer_cfgs'), (list, tuple)):
            raise ValueError(
                f'DMSSupernet cannot deepen {cls.__name__}: its layer_cfgs '
                'has a config for each layer. Give one dict for all layers, '
                'or the deeper network itself as the architecture.')
        given = argument(cls, cfg, 'out_indices')
        # at the same share of the depth as before: a plain number would now
        # stand for a layer in the middle
        changed['out_indices'] = [
            index if index == -1 else blocks(index % number + 1, deepen) - 1
            for index in ([given] if isinstance(given, int) else given)
        ]
    heads, dims = arch['num_heads'], arch['embed_dims']
    arch['num_heads'] = blocks(heads, widen)
    arch['embed_dims'] = dims // heads * arch['num_heads']
    arch['feedforward_channels'] = round(arch['feedforward_channels'] *
                                         arch['embed_dims'] / dims)
    arch['num_layers'] = blocks(number, deepen)
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
    first = blocks(heads[0], widen)
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
