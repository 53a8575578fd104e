# Copyright (c) dms_razor contributors. All rights reserved.
# The quickstart's network as a supernet whose subnets share their weights:
# every step trains the whole network and a random one. What an evolution
# scores its candidates with.
_base_ = './resnet34_digits.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMSOneShot',
    architecture=_base_.model,
    # subnets of a quarter of the width and more
    mutator=dict(
        units={
            'backbone.conv1': dict(least=4),
            'backbone.layer1.?.conv?': dict(least=4),
            'backbone.layer2.?.conv?': dict(least=8),
            'backbone.layer3.?.conv?': dict(least=16),
        }),
    input_shape=(1, 8, 8))

# the last 400 training images are kept to score candidates with
train_dataloader = dict(dataset=dict(indices=801))
# the other networks need more steps than one alone
train_cfg = dict(max_epochs=30, val_interval=30)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.1,
        begin=0,
        end=3,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', begin=3, end=30, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=30))
