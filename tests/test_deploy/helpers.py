# Copyright (c) dms_razor contributors. All rights reserved.
"""A searched detector and classifier without training, written to folders."""
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_razor.openmmlab.retrain import RetrainConfig, read_config
from dms_razor.search import Search

YOLO = 'configs/yolov8/yolov8-d0.33-w0.125_b8-60e_coco-format.py'
RETINA = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
RESNET = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
DEIT = 'mmpretrain::deit/deit-tiny_4xb256_in1k.py'
SWIN = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
CONVNEXT = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'

SMALL = {
    DEIT:
    dict(
        backbone=dict(
            arch=dict(
                embed_dims=48,
                num_layers=2,
                num_heads=4,
                feedforward_channels=96),
            img_size=64),
        head=dict(num_classes=10, in_channels=48)),
    SWIN:  # 16 x 16 and 8 x 8 patches: shifted windows, padded ones, merging
    dict(
        backbone=dict(
            arch=dict(embed_dims=24, depths=[2, 2], num_heads=[2, 4]),
            out_indices=(1, ),
            img_size=64,
            window_size=3),
        head=dict(num_classes=10, in_channels=48)),
    CONVNEXT:
    dict(
        backbone=dict(arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24,
                                                               32])),
        head=dict(num_classes=10, in_channels=32)),
}
"""What makes the network of a config a small one."""


def export(base, folder, repo, size=64, blocks=1.):
    """Half the MACs of a config's network, with random importances.

    ``blocks`` is the share of the removable blocks that the search wants to
    keep.
    """
    path = base if '::' in base else str(repo / base)
    retrain = Config(read_config(path))
    init_default_scope(retrain.default_scope)
    for part, changes in SMALL.get(base, {}).items():
        retrain.model[part].update(changes)
    settings = retrain.model.copy()
    settings.backbone = settings.backbone.copy()
    settings.backbone.pop('init_cfg', None)
    if retrain.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', retrain.data_preprocessor)
    torch.manual_seed(0)
    model = MODELS.build(settings)
    with torch.no_grad():  # boxes of unlike sizes, scores far apart
        for name, parameter in model.named_parameters():
            if 'head' in name and parameter.dim() > 1:
                fan = parameter[0].numel()
                parameter.normal_(0, (2 / fan)**.5)
    search = Search(
        model, torch.randn(1, 3, size, size), target='50%', total_steps=1)
    search.bank.importance.copy_(torch.rand(search.space.layout.E))
    with torch.no_grad():
        for number, unit in enumerate(search.space.units):
            if unit.kind == 'depth':
                search.bank.ratios[number] = 1 - blocks
    search.bank.refresh()
    architecture = retrain.model.to_dict()
    architecture['backbone'].pop('init_cfg', None)
    return search.export(
        folder, picture=False, retrain=RetrainConfig(path, architecture))
