# Copyright (c) dms_razor contributors. All rights reserved.
# Autoformer's base space as MMRazor ships it: only its choices.
_base_ = './autoformer-base_4xb256_in1k.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='11G',
    search=dict(
        epochs=30, warmup_epochs=20, width_only_epochs=2, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(
        lr=5e-3,
        units={
            '*.patch_embed.projection': dict(choices=[528, 576, 624]),
            '*.attn.heads': dict(choices=[8, 9, 10]),
            # 3, 3.5 and 4 times the largest embedding
            '*.fc1': dict(choices=[1872, 2184, 2496]),
            'backbone.blocks': dict(choices=[14, 15, 16]),
        }))

custom_hooks = [
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
