# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for Swin, which is also the one of its DeiT configs.
_base_ = [
    'mmpretrain::deit/deit-small_4xb256_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=dict(type='DMSSupernet', cfg=_base_.model, deepen=4 / 3),
    subnet='work_dirs/dms-deit-small-b16-1300m_4xb256-30e_in1k/subnet/'
    'subnet.json')
