# Copyright (c) dms_razor contributors. All rights reserved.
# The subnet of ratios alone, to be tested as it is, or finetuned.
_base_ = './dms-resnet34-50p-pretrained_digits_retrain.py'

model = dict(
    subnet='work_dirs/dms-resnet34-80p-200i-pretrained_digits/subnet/'
    'subnet.json',
    checkpoint='work_dirs/dms-resnet34-80p-200i-pretrained_digits/subnet/'
    'subnet.pth')
