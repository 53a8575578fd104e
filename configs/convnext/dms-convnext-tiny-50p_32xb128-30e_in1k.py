# Copyright (c) dms_razor contributors. All rights reserved.
# ConvNeXt-T, not pretrained, to half of its MACs.
_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='50%',
    search=dict(epochs=30, warmup_epochs=10, width_only_epochs=2))

# the recipe's moving average of the weights, and the hooks of a search
custom_hooks = _base_.custom_hooks + [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=100, table_interval=2000),
    dict(type='mmrazor.ExportSubnetHook'),
]

# the recipe of the network in a tenth of its epochs
train_cfg = dict(max_epochs=32)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        end=2,
        convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=2)
]
