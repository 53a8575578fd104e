# Copyright (c) dms_razor contributors. All rights reserved.
# A small YOLOv8 (YOLOv8-n with half the channels) at 320 x 320, from scratch,
# for data sets of some hundred images in COCO's format.
_base_ = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'

# a folder with annotations/{train,val}.json and images/ or {train,val}/;
# tools/benchmark_detection.py fills in its path and classes
data_root = 'data/coco-format/'
classes = ('object', )
img_scale = (320, 320)
max_epochs = 60
close_mosaic_epochs = 6
batch_size = 8

deepen_factor = 0.33
widen_factor = 0.125
model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(
        head_module=dict(widen_factor=widen_factor, num_classes=len(classes))),
    train_cfg=dict(assigner=dict(num_classes=len(classes))))

load = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
]
fit = [
    dict(type='YOLOv5KeepRatioResize', scale=img_scale),
    dict(
        type='LetterResize',
        scale=img_scale,
        allow_scale_up=True,
        pad_val=dict(img=114.0)),
]
affine = dict(
    type='YOLOv5RandomAffine',
    max_rotate_degree=0.0,
    max_shear_degree=0.0,
    scaling_ratio_range=(0.5, 1.5),
    max_aspect_ratio=100,
    border_val=(114, 114, 114))
# mmyolo's without albumentations, which it does not install
change = [
    dict(type='YOLOv5HSVRandomAug'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip',
                   'flip_direction')),
]
train_pipeline = [
    *load,
    dict(
        type='Mosaic', img_scale=img_scale, pad_val=114.0, pre_transform=load),
    dict(affine, border=(-img_scale[0] // 2, -img_scale[1] // 2)),
    *change,
]
train_pipeline_stage2 = [*load, *fit, affine, *change]
test_pipeline = [
    load[0],
    *fit,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor', 'pad_param')),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    drop_last=True,
    collate_fn=dict(_delete_=True, type='yolov5_collate'),
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=False, min_size=4),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# AdamW learns from few steps; mmyolo's SGD warms up for 1,000
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    clip_grad=dict(max_norm=10.0),
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        begin=0,
        end=2,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.02,
        begin=2,
        end=max_epochs,
        convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=25),
    param_scheduler=dict(_delete_=True, type='ParamSchedulerHook'),
    checkpoint=dict(interval=-1, save_best=None, save_last=True))
custom_hooks = [
    _base_.custom_hooks[0],
    dict(
        type='mmdet.PipelineSwitchHook',
        switch_epoch=max_epochs - close_mosaic_epochs,
        switch_pipeline=train_pipeline_stage2),
]
train_cfg = dict(
    _delete_=True,
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=max_epochs)
