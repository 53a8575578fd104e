# Copyright (c) dms_razor contributors. All rights reserved.
# mmpretrain's recipe for MobileNetV3.
_base_ = './dms-ofa-450m_8xb128-600e_in1k_retrain.py'

model = dict(subnet='work_dirs/dms-ofa-3ms_8xb128-30e_in1k/subnet/subnet.json')
