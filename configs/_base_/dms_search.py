# Copyright (c) dms_razor contributors. All rights reserved.
# What every search has beside its model and its recipe.
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)

custom_hooks = [
    # drives the ratios, freezes depth, prints the pre-flight
    dict(type='mmrazor.DMSHook'),
    # what the network keeps, in the log and for TensorBoard
    dict(type='mmrazor.StructureLogHook', interval=100, table_interval=2000),
    # writes work_dir/subnet/ at the end
    dict(type='mmrazor.ExportSubnetHook'),
    # seconds, iterations and images, in the log and search_cost.json
    dict(type='mmrazor.SearchCostHook'),
]
