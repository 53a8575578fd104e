# Copyright (c) dms_razor contributors. All rights reserved.
# The searched small YOLOv8 from scratch, with the recipe of the supernet.
_base_ = [
    './yolov8-d0.33-w0.125_b8-60e_coco-format.py',
    '../_base_/dms_retrain.py',
]

model = dict(
    _delete_=True,
    type='DMSSubModel',
    cfg=_base_.model,
    subnet='work_dirs/dms-yolov8-50p_b8-60e_coco-format/subnet/subnet.json')
