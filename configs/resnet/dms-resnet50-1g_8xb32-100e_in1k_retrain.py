# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's basic recipe with the step schedule.
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-resnet50-1g_8xb32-10e_in1k/subnet/subnet.json')
