# Copyright (c) dms_razor contributors. All rights reserved.
# OFA's space in widths and depths, to 0.45 G MACs (paper, Table 3): every
# block is 3, 4 or 6 times as wide inside as its input, every stage has 2 to 4
# blocks. Kernel size and resolution are the largest of the space and stay.
_base_ = './ofa-mobilenet-v3_8xb128_in1k.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='0.45G',
    search=dict(epochs=30, width_only_epochs=2, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(
        lr=5e-3,
        units={
            '*.layer2.0.expand_conv.conv': dict(choices=[48, 64, 96]),
            '*.layer2.[123].expand_conv.conv': dict(choices=[72, 96, 144]),
            '*.layer3.0.expand_conv.conv': dict(choices=[72, 96, 144]),
            '*.layer3.[123].expand_conv.conv': dict(choices=[120, 160, 240]),
            '*.layer4.0.expand_conv.conv': dict(choices=[120, 160, 240]),
            '*.layer4.[123].expand_conv.conv': dict(choices=[240, 320, 480]),
            '*.layer5.0.expand_conv.conv': dict(choices=[240, 320, 480]),
            '*.layer5.[123].expand_conv.conv': dict(choices=[336, 448, 672]),
            '*.layer6.0.expand_conv.conv': dict(choices=[336, 448, 672]),
            '*.layer6.[123].expand_conv.conv': dict(choices=[480, 640, 960]),
            # the first block of a stage has no shortcut and stays
            'backbone.layer[23456]': dict(choices=[1, 2, 3]),
            # OFA does not search these
            'backbone.layer1': dict(fixed=True),
            'backbone.first_conv.conv': dict(fixed=True),
            '*.linear_conv.conv': dict(fixed=True),
            '*.se.conv1.conv': dict(fixed=True),
            'backbone.last_conv.*': dict(fixed=True),
        }))

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=100, table_interval=2000),
    dict(type='mmrazor.ExportSubnetHook'),
]

# the recipe of the network in a twentieth of its epochs: 0.973^10 each
train_cfg = dict(max_epochs=32)
param_scheduler = dict(gamma=0.76)
