# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for DeiT.
_base_ = './autoformer-base_4xb256_in1k.py'

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-autoformer-base-fine_4xb256-30e_in1k/subnet/'
    'subnet.json')
