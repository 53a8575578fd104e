# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches of a few seconds, through mmengine's runner, for tests."""
import random
import uuid

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from toy_models import algorithm


@DATASETS.register_module()
class NoisyToyDataset(torch.utils.data.Dataset):
    """64 images in four classes; every reading draws from the generators."""
    metainfo = dict(classes=tuple('abcd'))

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(64, 3, 16, 16, generator=generator)
        self.images += (torch.arange(64) % 4 - 1.5)[:, None, None, None]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        noise = .1 * torch.randn(3, 16, 16) * random.random()
        return dict(
            inputs=self.images[i] + noise,
            data_samples=DataSample().set_gt_label(i % 4))


def toy_config(work_dir, max_iters=24, **settings):
    """A search of 24 iterations; ``settings`` override by dotted name."""
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=algorithm(
                search=dict(iters=20, width_only_iters=4),
                mutator=dict(lr=.2)),
            data_preprocessor=dict(mean=[0.] * 3, std=[1.] * 3),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(type='NoisyToyDataset')),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=.05, momentum=.9)),
            custom_hooks=[dict(type='mmrazor.DMSHook')],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=4),
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=-1)),
            randomness=dict(seed=0),
            experiment_name=f'toy_{uuid.uuid4()}',
            log_level='ERROR',
            work_dir=str(work_dir)))
    cfg.merge_from_dict(settings)
    return cfg


def with_validation(cfg, interval=8):
    """Add validation on the same images."""
    cfg.val_dataloader = dict(
        cfg.train_dataloader,
        sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.val_evaluator = dict(type='Accuracy')
    cfg.val_cfg = dict()
    cfg.train_cfg.val_interval = interval
    return cfg


def run(cfg):
    """Train as configured; returns the runner."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def same_search(one, other):
    """Whether two runners end with the same search, bit by bit."""
    a, b = one.model.search.bank, other.model.search.bank
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ('ratios', 'importance', 'order'))


def same_weights(one, other):
    """Whether two runners end with the same weights, bit by bit."""
    a, b = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)
