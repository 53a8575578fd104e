# Copyright (c) dms_razor contributors. All rights reserved.
# DMS-MobileNetV2: all channels x 1.5 and twice the blocks in each stage, not
# pretrained, to the MACs of MobileNetV2.
_base_ = [
    'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
    '../_base_/dms_search.py',
]

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=dict(
        type='DMSSupernet', cfg=_base_.model, widen=1.5, deepen=2),
    target='0.3G',
    search=dict(epochs=30, width_only_epochs=2, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(lr=5e-3))

# the recipe of the network in a tenth of its epochs: 0.98^10 each
train_cfg = dict(max_epochs=32)
param_scheduler = dict(gamma=0.817)
