# Copyright (c) dms_razor contributors. All rights reserved.
# Evolution in OFA's space to 0.45 G MACs (paper, Table 3), with MMRazor's
# numbers of candidates and generations.
_base_ = './dms-ofa-450m_8xb128-30e_in1k.py'

model = dict(search=None)
load_from = 'work_dirs/oneshot-ofa-450m_8xb128-600e_in1k/epoch_600.pth'

train_cfg = dict(
    _delete_=True,
    type='mmrazor.DMSEvolutionLoop',
    # 10,010 training images, ten of each class: those of the validation are
    # for the end
    dataloader=dict(
        batch_size=128,
        num_workers=5,
        dataset=dict(
            type='ImageNet',
            data_root='data/imagenet',
            split='train',
            indices=list(range(0, 1281167, 128)),
            test_mode=True,
            pipeline=_base_.test_pipeline),
        sampler=dict(type='DefaultSampler', shuffle=False)),
    evaluator=_base_.val_evaluator,
    max_epochs=20,
    num_candidates=50,
    top_k=10,
    num_mutation=25,
    num_crossover=25,
    calibrate_sample_num=2048)

custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    # with the statistics with which it was scored
    dict(type='mmrazor.ExportSubnetHook', bn_batches=0),
]
