# Copyright (c) dms_razor contributors. All rights reserved.
# Searches the quickstart's network for one of half its MACs.
_base_ = './resnet34_digits.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='50%',
    # 15 epochs in all, as many as the plain training has
    search=dict(epochs=12, width_only_epochs=3),
    input_shape=(1, 8, 8))

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=19, table_interval=95),
    dict(type='mmrazor.SearchCostHook'),
    dict(type='mmrazor.ExportSubnetHook'),
]
