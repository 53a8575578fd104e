# Copyright (c) dms_razor contributors. All rights reserved.
# DMS_p: the trained network goes on training while it is searched, and the
# subnet is finetuned from the weights that it has then.
_base_ = './dms-resnet34-50p_digits.py'

load_from = 'work_dirs/resnet34_digits/epoch_15.pth'

# where the trained network's own schedule was near its end
optim_wrapper = dict(optimizer=dict(lr=0.02))

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=19, table_interval=95),
    dict(type='mmrazor.SearchCostHook'),
    dict(type='mmrazor.ExportSubnetHook', finetune=True, bn_batches=19),
]
