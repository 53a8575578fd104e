# Copyright (c) dms_razor contributors. All rights reserved.
# Searches the small YOLOv8, not pretrained, for one of half its MACs.
_base_ = './yolov8-d0.33-w0.125_b8-60e_coco-format.py'

custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='50%',
    search=dict(epochs=48, width_only_epochs=12))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=25, table_interval=250),
    dict(type='mmrazor.ExportSubnetHook'),
]
