# Copyright (c) dms_razor contributors. All rights reserved.
"""A small detector on a data set in COCO's format, whatever is in it.

The configs of ``configs/yolov8/*_coco-format*.py`` leave the data open; here
its path, classes, image size and the length of the training are filled in.
"""
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple, Union

from _steps import CONFIGS, Recipe, shorten
from mmengine.config import Config, ConfigDict

from dms_razor.openmmlab.example_input import input_shape_from_config
from dms_razor.subnet.files import whole_file

SPLITS = ('train', 'val', 'test')
KEYS = ('images', 'annotations', 'categories')


class DataError(ValueError):
    """A folder cannot be trained on."""


@dataclass
class CocoFolder:
    """A folder with ``annotations/SPLIT.json`` and the images.

    Args:
        root (Path): The folder. Images are in ``root/SPLIT/`` or, for all
            splits, in ``root/images/``.

    Raises:
        DataError: If annotations or images are not there, or if the splits
            do not have the same classes.
    """
    root: Path

    def __post_init__(self) -> None:
        self.root = Path(self.root).resolve()
        self.content = {
            split: self._read(split)
            for split in SPLITS if self.annotations(split).is_file()
        }
        for split, others in (('train', ()), ('val', ('test', ))):
            if not {split, *others} & set(self.content):
                raise DataError(
                    f'{self.annotations(split)} is not there; give a folder '
                    'with annotations/train.json and annotations/val.json (or '
                    "test.json) in COCO's format and the images in images/, "
                    'or in train/ and val/')
        classes = {split: self._categories(split) for split in self.content}
        for split, found in classes.items():
            if found != classes['train']:
                raise DataError(
                    f'{self.annotations(split)} has the classes {found} and '
                    f'train.json {classes["train"]}; labels would be mixed '
                    'up: give both the same categories in the same order')

    def _read(self, split: str) -> dict:
        path = self.annotations(split)
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            content = {key: list(content[key]) for key in KEYS}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not in COCO's format ({type(error).__name__}: "
                f'{error}); it takes the keys {", ".join(KEYS)}') from error
        for key in KEYS:
            if not content[key]:
                raise DataError(f'{path} has no {key}; give a split with '
                                'boxes')
        image = self.root / self.images(split) / content['images'][0].get(
            'file_name', '')
        if not image.is_file():
            raise DataError(
                f'{image}, the first image of {path.name}, is not there; put '
                'the images into images/, or into train/ and val/')
        return content

    def _categories(self, split: str) -> Tuple[Tuple[int, str], ...]:
        """(id, name) as they come: mmdet numbers them in this order."""
        return tuple((category['id'], category['name'])
                     for category in self.content[split]['categories'])

    def annotations(self, split: str) -> Path:
        """The file of a split's annotations."""
        return self.root / 'annotations' / f'{split}.json'

    def images(self, split: str) -> str:
        """The folder of a split's images, relative to ``root``."""
        return f'{split}/' if (self.root / split).is_dir() else 'images/'

    @property
    def classes(self) -> Tuple[str, ...]:
        """Names of the classes, in the order in which mmdet counts them."""
        return tuple(name for _, name in self._categories('train'))


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

    Raises:
        DataError: If the training images are fewer than a batch.
    """
    batch = cfg.train_dataloader.batch_size
    number = len(data.content['train']['images'])
    if number < batch:
        raise DataError(f'{data.root} has {number} training images, which '
                        f'make no batch of {batch}; give more')
    test = 'test' if 'test' in data.content else val
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


def prepare(path: Union[str, Path],
            data: CocoFolder,
            size: int,
            epochs: int,
            val: str = 'val',
            flip: bool = True) -> Config:
    """A config that reads this data, with the length of the training set.

    Args:
        path (str | Path): The config, see :func:`point_to`.
        data (CocoFolder): The data.
        size (int): Side of the square images, in all pipelines.
        epochs (int): Length; of a search, a fifth is width-only.
        val (str): The split that validates.
        flip (bool): Whether to train on mirror images too. Where left and
            right are not alike they are left out.
    """
    cfg = point_to(Config.fromfile(path), data, val)
    cfg.visualizer.vis_backends = []
    # mmyolo has no log processor of its own, of which mmengine would warn
    cfg.log_processor['_scope_'] = 'mmengine'
    pipelines = [
        cfg[f'{kind}_dataloader'].dataset.pipeline
        for kind in ('train', 'val', 'test')
    ]
    for hook in cfg.get('custom_hooks', []):
        if hook.type.endswith('PipelineSwitchHook'):
            hook.switch_epoch = epochs - max(1, epochs // 10)
            pipelines.append(hook.switch_pipeline)
    for transform in _transforms(pipelines):
        for key in {'scale', 'img_scale'} & set(transform):
            transform[key] = (size, size)
        if 'border' in transform:
            transform.border = (-size // 2, -size // 2)
        if not flip and transform.get('type', '').endswith('RandomFlip'):
            transform.prob = 0.
    return shorten(cfg, epochs, max(1, min(2, epochs // 4)))


@dataclass
class DetectorRecipe(Recipe):
    """A detector in the place of a classifier.

    Attributes:
        latency_table (Path, optional): What the search's budget is of, where
            that is a latency.
    """
    latency_table: Optional[Path] = None

    def scores(self, metrics: Dict[str, float]) -> Dict[str, float]:
        """mAP, and that at an IoU of 0.5."""
        return {
            name: 100 * metrics[f'coco/bbox_{name}']
            for name in ('mAP', 'mAP_50')
        }

    def before_search(self, cfg: Config, seed: int) -> None:
        """Tell the search the data, of which the configs' files know nothing.
        """
        plain = self.config(self.supernet, 'supernet', seed)
        for name in ('work_dir', 'experiment_name'):
            plain.pop(name)
        path = self.work_dir / 'supernet.py'
        with whole_file(path) as file:
            plain.dump(file)
        for hook in cfg.custom_hooks:
            if hook.type.endswith('ExportSubnetHook'):
                hook.retrain_base = str(path)
        cfg.model.input_shape = input_shape_from_config(cfg)
        if self.latency_table is not None:
            cfg.model.latency_table = str(self.latency_table)


def detector_recipe(work_dir: Path,
                    data: CocoFolder,
                    target: str,
                    size: int,
                    epochs: int,
                    val: str,
                    flip: bool,
                    latency_table: Optional[Path] = None) -> DetectorRecipe:
    """The small YOLOv8 of ``configs/yolov8/*_coco-format*.py`` on some data.

    Raises:
        DataError: If the training images are fewer than a batch, before
            anything runs.
    """
    searched = 'dms-yolov8-50p_b8-60e_coco-format'
    if latency_table is not None:
        searched = 'dms-yolov8-50p-latency_b8-60e_coco-format'
    recipe = DetectorRecipe(
        work_dir,
        *(CONFIGS / 'yolov8' / f'{name}.py'
          for name in ('yolov8-d0.33-w0.125_b8-60e_coco-format', searched,
                       f'{searched}_retrain')),
        prepare=partial(
            prepare, data=data, size=size, epochs=epochs, val=val, flip=flip),
        target=target,
        val=val,
        test=val != 'test' and 'test' in data.content,
        latency_table=latency_table)
    recipe.prepare(recipe.search)
    return recipe


def _transforms(part: Any) -> Iterator[ConfigDict]:
    """All transforms of some pipelines, nested ones too."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for inner in part:
            yield from _transforms(inner)
