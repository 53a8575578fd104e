# Copyright (c) dms_razor contributors. All rights reserved.
# DMS-DeiT-T: DeiT-S with 16 instead of 12 blocks, not pretrained, to 1.3 G
# MACs, about those of DeiT-T. 20 of 30 epochs are warm-up at the supernet's
# own cost.
_base_ = [
    'mmpretrain::deit/deit-small_4xb256_in1k.py',
    '../_base_/dms_search.py',
]

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=dict(type='DMSSupernet', cfg=_base_.model, deepen=4 / 3),
    target='1.3G',
    search=dict(
        epochs=30, warmup_epochs=20, width_only_epochs=2, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(lr=5e-3))

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
