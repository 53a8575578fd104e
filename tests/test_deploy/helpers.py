# Copyright (c) dms_razor contributors. All rights reserved.
"""A searched detector and classifier without training, written to folders."""
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_razor.search import Search
from dms_razor.subnet import RetrainConfig
from dms_razor.subnet.retrain_config import read_config

YOLO = 'configs/yolov8/yolov8-d0.33-w0.125_b8-60e_coco-format.py'
RETINA = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
RESNET = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'


def export(base, folder, repo, size=64):
    """Half the MACs of a config's network, with random importances."""
    path = base if '::' in base else str(repo / base)
    retrain = Config(read_config(path))
    init_default_scope(retrain.default_scope)
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
    search.bank.refresh()
    architecture = retrain.model.to_dict()
    architecture['backbone'].pop('init_cfg', None)
    return search.export(
        folder, picture=False, retrain=RetrainConfig(path, architecture))
