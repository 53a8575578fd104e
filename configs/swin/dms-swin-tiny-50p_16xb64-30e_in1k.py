# Copyright (c) dms_razor contributors. All rights reserved.
# Swin-T, not pretrained, to half of its MACs.
_base_ = [
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    '../_base_/dms_search.py',
]

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='50%',
    search=dict(epochs=30, warmup_epochs=10, width_only_epochs=2))

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
