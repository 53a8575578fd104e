# Copyright (c) dms_razor contributors. All rights reserved.
# The standard EfficientNet-B4 at 224 x 224 with timm's recipe, by mmpretrain's
# means. The networks that are searched in B4 are retrained with it.
_base_ = [
    'mmpretrain::_base_/models/efficientnet_b4.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/datasets/imagenet_bs96_timm.py',
    '../_base_/schedules/imagenet_bs768_rmsprop_450e.py',
]

model = dict(backbone=dict(drop_path_rate=0.2))
