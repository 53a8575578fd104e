# Copyright (c) dms_razor contributors. All rights reserved.
# timm's recipe for EfficientNet.
_base_ = [
    './efficientnet-b7-288_8xb96-450e_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-en-b2_8xb32-30e_in1k/subnet/subnet.json')
