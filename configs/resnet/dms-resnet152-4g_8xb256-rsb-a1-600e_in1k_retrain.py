# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's rsb-a1 recipe, which it has for ResNet-50: here the searched
# network takes the place of the backbone.
_base_ = [
    'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=dict(_base_.model, backbone=dict(_base_.model.backbone, depth=152)),
    subnet='work_dirs/dms-resnet152-4g_8xb32-10e_in1k/subnet/subnet.json')
