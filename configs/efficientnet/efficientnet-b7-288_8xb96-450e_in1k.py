# Copyright (c) dms_razor contributors. All rights reserved.
# As efficientnet-b7-256, at 288 x 288.
_base_ = './efficientnet-b7-256_8xb96-450e_in1k.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=288)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=329)
test_pipeline[2].update(crop_size=288)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
