# Copyright (c) dms_razor contributors. All rights reserved.
# DMS-EN-B0: EfficientNet-B4 at 224 x 224, not pretrained, to 0.39G MACs.
_base_ = [
    'mmpretrain::efficientnet/efficientnet-b4_8xb32_in1k.py',
    '../_base_/dms_search.py',
]

model = dict(
    _delete_=True,
    type='mmrazor.DMS',
    architecture=_base_.model,
    target='0.39G',
    search=dict(epochs=30, width_only_epochs=2, fall=1., harden=0.),
    # the paper's settings; without them: 'auto', see docs/en/method.md
    resource_loss=dict(loss_weight=1.),
    mutator=dict(lr=5e-3))

# the recipe of the supernet in about a third of its epochs
train_cfg = dict(max_epochs=32)
param_scheduler = dict(milestones=[9, 18, 27])

# 224 instead of the supernet's own input size
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=224)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(crop_size=224)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# retrained with timm's recipe and not with that of the search
custom_hooks = _base_.custom_hooks
custom_hooks[2].update(
    retrain_base='{{ fileDirname }}/efficientnet-b4-224_8xb96-450e_in1k.py')
