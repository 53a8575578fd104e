# Copyright (c) dms_razor contributors. All rights reserved.
# ResNet-50, not pretrained, to 1 G MACs.
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/dms_search.py',
]

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='1.0G',
    search=dict(epochs=10, width_only_epochs=1, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(lr=5e-3))

# the recipe of the supernet in a tenth of its epochs
train_cfg = dict(max_epochs=11)
param_scheduler = dict(milestones=[3, 6, 9])
