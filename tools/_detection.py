# Copyright (c) dms_razor contributors. All rights reserved.
"""A small detector on a data set in COCO's format, whatever is in it.

The configs of ``configs/yolov8/*_coco-format*.py`` leave the data open; here
its path, classes, image size and the length of the training are filled in.
"""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple, Union

from mmengine.config import Config


@dataclass
class CocoFolder:
    """A folder with ``annotations/SPLIT.json`` and the images.

    Args:
        root (Path): The folder. Images are in ``root/SPLIT/`` or, for all
            splits, in ``root/images/``.

    Raises:
        ValueError: If the training annotations are not there.
    """
    root: Path

    def __post_init__(self) -> None:
        self.root = Path(self.root).resolve()
        if not self.annotations('train').is_file():
            raise ValueError(
                f'{self.annotations("train")} is not there; give a folder '
                'with annotations/train.json and annotations/val.json (or '
                "test.json) in COCO's format and the images in images/, or "
                'in train/ and val/')

    def annotations(self, split: str) -> Path:
        """The file of a split's annotations."""
        return self.root / 'annotations' / f'{split}.json'

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return self.annotations(split).is_file()

    def images(self, split: str) -> str:
        """The folder of a split's images, relative to ``root``."""
        return f'{split}/' if (self.root / split).is_dir() else 'images/'

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of the classes, in the order of their ids."""
        content = json.loads(self.annotations('train').read_text())
        categories = sorted(content['categories'], key=lambda c: c['id'])
        return tuple(category['name'] for category in categories)

    def number(self, split: str) -> int:
        """Images of a split."""
        return len(json.loads(self.annotations(split).read_text())['images'])


def point_to(cfg: Config, data: CocoFolder, val: str = 'val') -> Config:
    """Let a detector's config read a folder, and count its classes.

    Args:
        cfg (Config): Config of a plain YOLOv8, of its search or of its
            retraining; changed in place.
        data (CocoFolder): The data.
        val (str): The split that validates. The split ``'test'`` tests, if
            there is one.

    Returns:
        Config: ``cfg``.
    """
    test = 'test' if data.has('test') else val
    for kind, split in (('train', 'train'), ('val', val), ('test', test)):
        cfg[f'{kind}_dataloader'].dataset.update(
            data_root=str(data.root),
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=data.images(split)),
            metainfo=dict(classes=data.classes))
        if kind != 'train':
            cfg[f'{kind}_evaluator'].ann_file = str(data.annotations(split))
    model = cfg.model.get('architecture') or cfg.model.get('cfg') or cfg.model
    model.bbox_head.head_module.num_classes = len(data.classes)
    model.train_cfg.assigner.num_classes = len(data.classes)
    return cfg


def resize_images(cfg: Config, size: int) -> Config:
    """Set the side of the square images in all pipelines."""
    pipelines = [
        cfg[f'{kind}_dataloader'].dataset.pipeline
        for kind in ('train', 'val', 'test')
    ] + [hook.switch_pipeline for hook in _switches(cfg)]
    _set_scale(pipelines, size)
    return cfg


def train_for(cfg: Config, epochs: int) -> Config:
    """Set the length of the training; of a search, a fifth is width-only."""
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler[0].end = max(1, min(2, epochs // 4))
    cfg.param_scheduler[1].update(begin=cfg.param_scheduler[0].end, end=epochs)
    for hook in _switches(cfg):
        hook.switch_epoch = epochs - max(1, epochs // 10)
    if 'architecture' in cfg.model:
        extra = max(1, epochs // 5)
        cfg.model.search = dict(epochs=epochs - extra, width_only_epochs=extra)
    return cfg


def never_flip(cfg: Config) -> Config:
    """Leave out mirror images, where left and right are not alike."""
    pipelines = [cfg.train_dataloader.dataset.pipeline]
    pipelines += [hook.switch_pipeline for hook in _switches(cfg)]
    for pipeline in pipelines:
        for transform in pipeline:
            if transform.type.endswith('RandomFlip'):
                transform.prob = 0.
    return cfg


def set_batch_size(cfg: Config, size: int) -> Config:
    """Set the images of a step, by which mmyolo multiplies its losses."""
    old = cfg.train_dataloader.batch_size
    cfg.train_dataloader.batch_size = size
    if 'architecture' in cfg.model:
        cfg.model.mutator.lr *= old / size
        cfg.model.resource_loss.loss_weight *= size / old
    return cfg


def prepare(path: Union[str, Path],
            work_dir: Path,
            seed: int,
            data: CocoFolder,
            size: Optional[int] = None,
            epochs: Optional[int] = None,
            val: str = 'val') -> Config:
    """A config, ready to run in ``work_dir``."""
    cfg = point_to(Config.fromfile(path), data, val)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = '-'.join(work_dir.parts[-2:])
    cfg.randomness = dict(seed=seed)
    cfg.visualizer.vis_backends = []
    if size is not None:
        resize_images(cfg, size)
    if epochs is not None:
        train_for(cfg, epochs)
    return cfg


def _switches(cfg: Config) -> list:
    return [
        hook for hook in cfg.get('custom_hooks', [])
        if hook.type.endswith('PipelineSwitchHook')
    ]


def _set_scale(value: Any, size: int) -> None:
    """Set every image scale in nested transforms."""
    if isinstance(value, dict):
        for key in ('scale', 'img_scale'):
            if key in value:
                value[key] = (size, size)
        if 'border' in value:
            value['border'] = (-size // 2, -size // 2)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            _set_scale(part, size)
