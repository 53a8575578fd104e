# Copyright (c) dms_razor contributors. All rights reserved.
# YOLOv8 with deepen and widen factor 0.5, trained like mmyolo's YOLOv8-n.
_base_ = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'

deepen_factor = 0.5
widen_factor = 0.5

model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)))

# mmengine marks what it takes from another package with a _scope_, which it
# would pass on to the function that collates
train_dataloader = dict(collate_fn=dict(_delete_=True, type='yolov5_collate'))
