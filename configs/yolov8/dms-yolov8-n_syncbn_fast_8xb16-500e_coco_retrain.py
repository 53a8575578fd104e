# Copyright (c) dms_razor contributors. All rights reserved.
# The searched network from scratch, with mmyolo's recipe for YOLOv8-n.
_base_ = [
    './yolov8-d0.5-w0.5_syncbn_fast_8xb16-500e_coco.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-yolov8-n_syncbn_fast_8xb16-30e_coco/subnet/'
    'subnet.json')
