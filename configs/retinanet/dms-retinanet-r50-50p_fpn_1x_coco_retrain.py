# Copyright (c) dms_razor contributors. All rights reserved.
# The searched network from its searched weights, with mmdet's recipe.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-retinanet-r50-50p_fpn_1x_coco/subnet/subnet.json',
    checkpoint='work_dirs/dms-retinanet-r50-50p_fpn_1x_coco/subnet/subnet.pth')
