# Copyright (c) dms_razor contributors. All rights reserved.
# The supernet of OFA, searched channel by channel to 0.45 G MACs: the width
# inside and between blocks, the squeeze of SE layers and the blocks. Kernel
# size and resolution are the largest of OFA's space and stay.
_base_ = './ofa-mobilenet-v3_8xb128_in1k.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='0.45G',
    search=dict(epochs=30, width_only_epochs=2, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(lr=5e-3))

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=100, table_interval=2000),
    dict(type='mmrazor.ExportSubnetHook'),
]

# the recipe of the network in a twentieth of its epochs: 0.973^10 each
train_cfg = dict(max_epochs=32)
param_scheduler = dict(gamma=0.76)
