# Copyright (c) dms_razor contributors. All rights reserved.
# DMS_p-: 200 iterations in which the ratios of the trained network move and
# none of its weights, to 80 % of the MACs. What comes out is a trained
# network: its BatchNorm statistics are taken anew, and that is all.
_base_ = './dms-resnet34-50p_digits.py'

model = dict(
    target='80%', search=dict(_delete_=True, iters=170, width_only_iters=30))
load_from = 'work_dirs/resnet34_digits/epoch_15.pth'

optim_wrapper = dict(optimizer=dict(lr=0.0, weight_decay=0.0))
param_scheduler = None
train_cfg = dict(
    _delete_=True, by_epoch=False, max_iters=200, val_interval=200)
train_dataloader = dict(sampler=dict(type='InfiniteSampler', shuffle=True))
default_hooks = dict(checkpoint=dict(by_epoch=False))
log_processor = dict(by_epoch=False)

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=20, table_interval=100),
    dict(type='mmrazor.SearchCostHook'),
    dict(type='mmrazor.ExportSubnetHook', finetune=True, bn_batches=19),
]
