# Copyright (c) dms_razor contributors. All rights reserved.
"""Detectors on a few small scenes of digits, through mmengine's runner."""
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from tools._digit_scenes import CLASSES, write_digit_scenes

SIZE = 64


def scenes(folder):
    """Four scenes to train and two to test, 64 x 64 pixels."""
    return write_digit_scenes(folder, dict(train=4, test=2), size=SIZE)


def shrink(cfg, root, work_dir, epochs=2):
    """Small scenes instead of COCO, two iterations an epoch, two epochs.

    Pipelines, optimizer, schedules and hooks stay; the random changes of
    albumentations go, which is not among the requirements.
    """
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = '-'.join(work_dir.parts[-3:])
    cfg.log_level = 'WARNING'
    cfg.randomness = dict(seed=0)
    # Batch norms of two images may amplify gradients beyond all numbers.
    cfg.optim_wrapper.clip_grad = dict(max_norm=10.)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1)
    cfg.visualizer.vis_backends = []
    for name, split in (('train', 'train'), ('val', 'test'), ('test', 'test')):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(root),
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=CLASSES))
        loader.dataset = smaller(loader.dataset)
        if name != 'train':
            cfg[f'{name}_evaluator'].ann_file = str(
                root / f'annotations/{split}.json')
    for hook in cfg.get('custom_hooks', []):
        if 'switch_epoch' in hook:
            hook.update(
                switch_epoch=1, switch_pipeline=smaller(hook.switch_pipeline))
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.train_cfg.pop('dynamic_intervals', None)
    model = cfg.model.get('architecture') or cfg.model.get('cfg') or cfg.model
    if model.bbox_head.get('head_module', {}).get('num_classes', 80) < 10:
        # a config that leaves the data open
        model.bbox_head.head_module.num_classes = len(CLASSES)
        model.train_cfg.assigner.num_classes = len(CLASSES)
    if 'architecture' in cfg.model:
        cfg.model.search = dict(epochs=1, width_only_epochs=epochs - 1)
    return cfg


def smaller(value):
    """Nested transforms at the size of the scenes, without albumentations."""
    if isinstance(value, dict):
        value = {key: smaller(part) for key, part in value.items()}
        for key in ('scale', 'img_scale'):
            if key in value:
                value[key] = (SIZE, SIZE)
        if 'border' in value:
            value['border'] = (-SIZE // 2, -SIZE // 2)
        if 'filter_cfg' in value:
            value['filter_cfg'] = dict(filter_empty_gt=False, min_size=1)
        return ConfigDict(value)
    if isinstance(value, (list, tuple)):
        return [
            smaller(part) for part in value
            if not (isinstance(part, dict)
                    and str(part.get('type')).endswith('Albu'))
        ]
    return value


def run(cfg):
    """Train; the runner."""
    if not isinstance(cfg, Config):
        cfg = Config.fromfile(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner
