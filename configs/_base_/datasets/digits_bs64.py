# Copyright (c) dms_razor contributors. All rights reserved.
# 1,201 + 596 handwritten digits of 8 x 8 pixels; nothing is downloaded.
dataset_type = 'DigitsDataset'
data_preprocessor = dict(num_classes=10, mean=[77.85], std=[95.85])

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type=dataset_type, split='train', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=298,
    num_workers=0,
    dataset=dict(
        type=dataset_type, split='test', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, ))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
