# Copyright (c) dms_razor contributors. All rights reserved.
# Finetunes the subnet from the weights of the search.
_base_ = './resnet34_digits.py'

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-resnet34-50p-pretrained_digits/subnet/subnet.json',
    checkpoint='work_dirs/dms-resnet34-50p-pretrained_digits/subnet/'
    'subnet.pth')

optim_wrapper = dict(optimizer=dict(lr=0.02))
