# Copyright (c) dms_razor contributors. All rights reserved.
# Searches the small YOLOv8, not pretrained, for one of half its latency. The
# table is measured on the device and does not ship: README.md has the command.
_base_ = './dms-yolov8-50p_b8-60e_coco-format.py'

model = dict(
    metric='latency',
    latency_table='work_dirs/latency/yolov8-d0.33-w0.125.json',
    target='50%')
