# Copyright (c) dms_razor contributors. All rights reserved.
# A pretrained ResNet-50 to 3 G MACs by its ratios alone: 800 iterations in
# which no weight moves (the paper's Table 2). What comes out is a network
# with trained weights, to be evaluated or retrained.
_base_ = './dms-resnet50-1g_8xb32-10e_in1k.py'

model = dict(
    target='3.0G',
    # 800 steps are few for the paper's step size
    search=dict(_delete_=True, iters=700, width_only_iters=100),
    mutator=dict(lr='auto'),
    resource_loss=dict(loss_weight='auto'))

# BatchNorm's running statistics follow the shrinking network, weights stay
optim_wrapper = dict(optimizer=dict(lr=0.0, weight_decay=0.0))
param_scheduler = None
train_cfg = dict(
    _delete_=True, by_epoch=False, max_iters=800, val_interval=800)
train_dataloader = dict(sampler=dict(type='InfiniteSampler', shuffle=True))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=800))
log_processor = dict(by_epoch=False)

load_from = 'https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'  # noqa: E501
