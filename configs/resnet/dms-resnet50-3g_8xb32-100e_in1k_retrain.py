# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's basic recipe with the step schedule.
_base_ = './dms-resnet50-1g_8xb32-100e_in1k_retrain.py'

model = dict(subnet='work_dirs/dms-resnet50-3g_8xb32-800i-pretrained_in1k/'
             'subnet/subnet.json')
