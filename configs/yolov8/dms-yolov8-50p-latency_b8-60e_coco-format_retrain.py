# Copyright (c) dms_razor contributors. All rights reserved.
# The network searched under latency from scratch, with the supernet's recipe.
_base_ = './dms-yolov8-50p_b8-60e_coco-format_retrain.py'

model = dict(subnet='work_dirs/dms-yolov8-50p-latency_b8-60e_coco-format/'
             'subnet/subnet.json')
