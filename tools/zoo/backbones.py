# Copyright (c) dms_razor contributors. All rights reserved.
"""The backbones of the coverage table: mmpretrain's, the smallest of each.

Every backbone in mmpretrain's registry is named here, with the arguments of
its smallest form and the side of a square image that it takes. Images are as
small as the network allows; that changes no channel.
"""
from typing import Any, Dict, List, Tuple

import torch
from mmpretrain.models import backbones
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .check import Pooled

#: Class name -> (constructor arguments, image side).
CASES: Dict[str, Tuple[Dict[str, Any], int]] = dict(
    LeNet5=(dict(), 32),
    AlexNet=(dict(num_classes=10), 224),
    VGG=(dict(depth=11, num_classes=10), 224),
    RegNet=(dict(arch='regnetx_400mf'), 64),
    ResNet=(dict(depth=18), 64),
    ResNeXt=(dict(depth=50), 64),
    ResNetV1d=(dict(depth=18), 64),
    ResNeSt=(dict(depth=50), 64),
    ResNet_CIFAR=(dict(depth=18), 32),
    SEResNet=(dict(depth=50), 64),
    SEResNeXt=(dict(depth=50), 64),
    ShuffleNetV1=(dict(), 64),
    ShuffleNetV2=(dict(widen_factor=.5), 64),
    MobileNetV2=(dict(widen_factor=.5), 64),
    MobileNetV3=(dict(arch='small_050'), 64),
    VisionTransformer=(dict(arch='deit-tiny', img_size=64), 64),
    SwinTransformer=(dict(arch='tiny', img_size=224), 224),
    TNT=(dict(arch='small', img_size=224), 224),
    T2T_ViT=(dict(
        img_size=64,
        num_layers=14,
        embed_dims=384,
        t2t_cfg=dict(token_dims=64, use_performer=False),
        layer_cfgs=dict(num_heads=6, feedforward_channels=3 * 384)), 64),
    Res2Net=(dict(depth=50), 64),
    RepVGG=(dict(arch='A0', out_indices=(3, )), 64),
    Conformer=(dict(arch='tiny'), 224),
    MlpMixer=(dict(arch='small', img_size=64), 64),
    DistilledVisionTransformer=(dict(arch='deit-tiny', img_size=64), 64),
    PCPVT=(dict(arch='small', out_indices=(3, )), 64),
    SVT=(dict(arch='small', out_indices=(3, )), 64),
    EfficientNet=(dict(arch='b0'), 64),
    EfficientNetV2=(dict(arch='b0'), 64),
    ConvNeXt=(dict(arch='atto'), 64),
    HRNet=(dict(arch='w18'), 64),
    ResNetV1c=(dict(depth=18), 64),
    ConvMixer=(dict(arch='768/32'), 64),
    EdgeNeXt=(dict(arch='xxsmall'), 64),
    CSPDarkNet=(dict(depth=53), 64),
    CSPResNet=(dict(depth=50), 64),
    CSPResNeXt=(dict(depth=50), 64),
    RepLKNet=(dict(arch='31B'), 64),
    RepMLPNet=(dict(arch='b', img_size=224), 224),
    PoolFormer=(dict(arch='s12'), 64),
    RIFormer=(dict(arch='s12'), 64),
    DenseNet=(dict(arch='121'), 64),
    VAN=(dict(arch='tiny'), 64),
    InceptionV3=(dict(num_classes=10, aux_logits=False), 299),
    MobileOne=(dict(arch='s0', out_indices=(3, )), 64),
    EfficientFormer=(dict(arch='l1'), 224),
    SwinTransformerV2=(dict(arch='tiny', img_size=256), 256),
    MViT=(dict(arch='tiny', img_size=224), 224),
    DeiT3=(dict(arch='small', img_size=64), 64),
    HorNet=(dict(arch='tiny'), 64),
    MobileViT=(dict(arch='xx_small'), 64),
    DaViT=(dict(arch='tiny', out_indices=(3, )), 224),
    BEiTViT=(dict(arch='small', img_size=64), 64),
    RevVisionTransformer=(dict(arch='deit-tiny', img_size=64), 64),
    MixMIMTransformer=(dict(
        arch='base', img_size=128, window_size=[4, 4, 4, 4]), 128),
    TinyViT=(dict(arch='5m', img_size=(224, 224)), 224),
    LeViT=(dict(arch='128s'), 224),
    Vig=(dict(arch='tiny'), 224),
    PyramidVig=(dict(arch='tiny'), 224),
    XCiT=(dict(
        img_size=64, patch_size=16, embed_dims=128, depth=12,
        num_heads=4), 64),
    ViTSAM=(dict(arch='base', img_size=64, use_rel_pos=True,
                 window_size=2), 64),
    ViTEVA02=(dict(arch='tiny', img_size=56, patch_size=14), 56),
    HiViT=(dict(arch='tiny', img_size=64), 64),
    MoCoV3ViT=(dict(arch='deit-tiny', img_size=64, patch_size=16), 64),
)

#: Backbones that return ``[B, C, N]``.
CHANNELS_FIRST = ('MlpMixer', 'EfficientFormer')

#: Pre-training forms that hide patches of the image -> what they are without.
PRETRAINING: Dict[str, str] = dict(
    BEiTPretrainViT='BEiTViT',
    CAEPretrainViT='BEiTViT',
    MAEHiViT='HiViT',
    MAEViT='VisionTransformer',
    MFFViT='VisionTransformer',
    MILANViT='VisionTransformer',
    MaskFeatViT='VisionTransformer',
    MixMIMPretrainTransformer='MixMIMTransformer',
    SimMIMSwinTransformer='SwinTransformer',
    iTPNHiViT='HiViT')

#: Names that are no network of their own -> why.
NO_NETWORK: Dict[str, str] = dict(
    CSPNet='the base class of CSPDarkNet, CSPResNet and CSPResNeXt',
    SparseResNet='runs inside SparK pre-training alone, which sets a global '
    'mask of visible patches; its weights are those of ResNet',
    SparseConvNeXt='the same for ConvNeXt',
    TIMMBackbone='a wrapper: any network of timm, if that is installed',
    **{
        name:
        f'the form of {base} that hides patches in pre-training and '
        f'whose weights {base} loads'
        for name, base in PRETRAINING.items()
    })

#: The rows that the tests run, one of every kind of architecture.
FAST = ('MobileNetV3', 'VisionTransformer', 'DistilledVisionTransformer',
        'SwinTransformer', 'ConvNeXt')


def backbone_names() -> List[str]:
    """Names of all backbones that mmpretrain registers or exports.

    Not all of them derive from ``BaseBackbone``, not all of them live among
    the backbones (those of self-supervised methods do not), and not every
    exported class is registered.
    """
    # others' classes in this registry are not mmpretrain's
    return sorted(
        set(backbones.__all__).union(
            name for name, cls in MODELS.module_dict.items()
            if isinstance(cls, type) and (
                cls.__module__.startswith(f'{backbones.__name__}.')
                or issubclass(cls, BaseBackbone)
                and cls.__module__.startswith('mmpretrain.'))),
        key=str.lower)


def registered_backbones() -> List[str]:
    """Names of all backbones of mmpretrain that are networks.

    In the order of the table; one that the table lacks comes last.
    """
    found = set(backbone_names()) - set(NO_NETWORK)
    return [name for name in CASES if name in found] + sorted(
        found - set(CASES), key=str.lower)


def build_case(name: str) -> Tuple[nn.Module, Tensor]:
    """The network of one row and its example image.

    Args:
        name (str): Class name of the backbone.

    Returns:
        tuple[nn.Module, Tensor]: The backbone with a classifier, and an image
        ``[1, 3, side, side]`` (one channel for LeNet5).

    Raises:
        KeyError: mmpretrain has this backbone, the table does not.
    """
    if name not in CASES:
        raise KeyError(f'the coverage table has no case for {name}: add its '
                       'smallest form to tools/zoo/backbones.py')
    arguments, side = CASES[name]
    torch.manual_seed(0)
    inputs = torch.randn(1, 1 if name == 'LeNet5' else 3, side, side)
    return Pooled(
        MODELS.get(name)(**arguments),
        inputs,
        tokens=2 if name in CHANNELS_FIRST else 1), inputs
