# Copyright (c) dms_razor contributors. All rights reserved.
# Trains the evolved network from scratch, with the recipe of the supernet.
_base_ = './resnet34_digits.py'

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/ea-predictor-resnet34-50p_digits/subnet/subnet.json')
