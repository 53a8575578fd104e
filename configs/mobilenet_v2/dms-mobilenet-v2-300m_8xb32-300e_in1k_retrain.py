# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for MobileNetV2.
_base_ = [
    'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=dict(type='DMSSupernet', cfg=_base_.model, widen=1.5, deepen=2),
    subnet='work_dirs/dms-mobilenet-v2-300m_8xb32-30e_in1k/subnet/subnet.json')
