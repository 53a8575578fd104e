# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for MobileNetV3.
_base_ = './ofa-mobilenet-v3_8xb128_in1k.py'

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/ea-predictor-ofa-450m_8xb128_in1k/subnet/subnet.json')
