# Copyright (c) dms_razor contributors. All rights reserved.
# Evolution instead of a gradient search, in the same space and to the same
# half of the MACs; the supernet is that of oneshot-resnet34_digits.py.
_base_ = './oneshot-resnet34_digits.py'

model = dict(type='mmrazor.DMS', target='50%')
load_from = 'work_dirs/oneshot-resnet34_digits/epoch_30.pth'

train_cfg = dict(
    _delete_=True,
    type='mmrazor.DMSEvolutionLoop',
    # the third of the training images that the supernet has not seen
    dataloader=dict(
        batch_size=400,
        num_workers=0,
        dataset=dict(
            type='DigitsDataset',
            split='train',
            indices=-400,
            test_mode=True,
            pipeline=[dict(type='PackInputs')]),
        sampler=dict(type='DefaultSampler', shuffle=False)),
    evaluator=_base_.val_evaluator,
    max_epochs=8,
    num_candidates=20,
    top_k=5,
    num_mutation=10,
    num_crossover=8,
    calibrate_sample_num=256)

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    # with the statistics with which it was scored
    dict(type='mmrazor.ExportSubnetHook', bn_batches=0),
]
