# Copyright (c) dms_razor contributors. All rights reserved.
# DMS-YOLOv8-n: the 0.5/0.5 supernet, not pretrained, to 4.2 G MACs at 640².
_base_ = './yolov8-d0.5-w0.5_syncbn_fast_8xb16-500e_coco.py'

custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

search_epochs = 30
width_only_epochs = 2
max_epochs = search_epochs + width_only_epochs

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='4.2G',
    # mmyolo multiplies its losses by the batch size of all GPUs, 128: so does
    # λ_res, and the step size of the ratios is divided by it
    mutator=dict(lr=5e-3 / 128),
    resource_loss=dict(loss_weight=128.),
    search=dict(
        epochs=search_epochs,
        width_only_epochs=width_only_epochs,
        fall=1.,
        harden=0.))

# mmyolo's recipe in fewer epochs; mosaic is off in the width-only epochs
default_hooks = dict(param_scheduler=dict(max_epochs=max_epochs))
train_cfg = dict(
    max_epochs=max_epochs,
    dynamic_intervals=[(search_epochs, _base_.val_interval_stage2)])

custom_hooks = [
    # mmyolo's: averaged weights, and the pipeline without mosaic at the end
    _base_.custom_hooks[0],
    dict(_base_.custom_hooks[1], switch_epoch=search_epochs),
    # drives the ratios, freezes depth, prints the pre-flight
    dict(type='mmrazor.DMSHook'),
    # what the network keeps, in the log and for TensorBoard
    dict(type='mmrazor.StructureLogHook', interval=100, table_interval=2000),
    # writes work_dir/subnet/ at the end
    dict(type='mmrazor.ExportSubnetHook'),
]
