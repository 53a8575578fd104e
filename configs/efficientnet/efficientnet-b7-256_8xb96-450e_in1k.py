# Copyright (c) dms_razor contributors. All rights reserved.
# The standard EfficientNet-B7 at 256 x 256 with timm's recipe, by mmpretrain's
# means. The network that is searched in B7 at that size is retrained with it.
_base_ = [
    'mmpretrain::_base_/models/efficientnet_b7.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/datasets/imagenet_bs96_timm.py',
    '../_base_/schedules/imagenet_bs768_rmsprop_450e.py',
]

model = dict(backbone=dict(drop_path_rate=0.2))

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=256)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=292)
test_pipeline[2].update(crop_size=256)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
