# Copyright (c) dms_razor contributors. All rights reserved.
# OFA's space as a supernet whose subnets share their weights: every step
# trains the largest network and a random one, with mmpretrain's recipe. What
# the evolution of ea-ofa-450m_8xb128_in1k.py scores its candidates with.
_base_ = './dms-ofa-450m_8xb128-30e_in1k.py'

model = dict(type='mmrazor.DMSOneShot', search=None, input_shape=(3, 224, 224))
custom_hooks = []

train_cfg = dict(max_epochs=600)
param_scheduler = dict(gamma=0.973)
