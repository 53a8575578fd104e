# Copyright (c) dms_razor contributors. All rights reserved.
# timm's EfficientNet recipe for 768 images a step: RMSprop, the learning rate
# x 0.97 every 2.4 epochs, moving average of the weights.
optim_wrapper = dict(
    optimizer=dict(
        type='RMSprop',
        lr=0.048,
        alpha=0.9,
        eps=1e-3,
        momentum=0.9,
        weight_decay=1e-5),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=2e-5,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
    # 0.97^(1 / 2.4)
    dict(type='ExponentialLR', gamma=0.98739, by_epoch=True, begin=5),
]

train_cfg = dict(by_epoch=True, max_epochs=450, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# decay of 0.9999
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]

auto_scale_lr = dict(base_batch_size=768)
