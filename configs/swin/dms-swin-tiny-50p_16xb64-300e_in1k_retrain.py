# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for Swin-T.
_base_ = [
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-swin-tiny-50p_16xb64-30e_in1k/subnet/subnet.json')
