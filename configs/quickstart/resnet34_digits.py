# Copyright (c) dms_razor contributors. All rights reserved.
# The network of the quickstart, trained the usual way: mmpretrain's ResNet-34
# for CIFAR with three stages of 16, 32 and 64 channels, on handwritten digits.
_base_ = [
    'mmpretrain::_base_/models/resnet34_cifar.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/datasets/digits_bs64.py',
]
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        in_channels=1,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, )),
    head=dict(in_channels=64))

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.1,
        begin=0,
        end=3,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', begin=3, end=15, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=15, val_interval=15)
val_cfg = dict()
test_cfg = dict()

# 19 iterations are one epoch
default_hooks = dict(logger=dict(interval=19), checkpoint=dict(interval=-1))
