# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for ConvNeXt-T.
_base_ = [
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet=('work_dirs/dms-convnext-tiny-50p_32xb128-30e_in1k/'
            'subnet/subnet.json'))
