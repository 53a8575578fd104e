# Copyright (c) dms_razor contributors. All rights reserved.
"""Search, narrow evenly and train a small YOLOv8: what the tools share."""
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import torch
from _detection import CocoFolder, never_flip, prepare, set_batch_size
from _steps import logged, narrow_uniformly
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from dms_razor.openmmlab.example_input import input_shape_from_config
from dms_razor.openmmlab.hooks.export import averaged_weights
from dms_razor.subnet.files import whole_file, write_text

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


class SearchError(ValueError):
    """A search cannot start."""


@dataclass
class Recipe:
    """What to train on, and how.

    Attributes:
        work_dir (Path): Folder for everything that is written.
        data (CocoFolder): The data.
        supernet (Path): Config of the plain network.
        search (Path): Config of its search.
        retrain (Path): Config that trains a subnet.
        target (str): Budget of the search.
        size (int, optional): Side of the images; by default the configs'.
        epochs (int, optional): Of the search and of each training; by
            default the configs'.
        val (str): The split that validates.
        flip (bool): Whether images may be flipped for training.
        batch_size (int, optional): Images of a step.
    """
    work_dir: Path
    data: CocoFolder
    supernet: Path
    search: Path
    retrain: Path
    target: str = '50%'
    size: Optional[int] = None
    epochs: Optional[int] = None
    val: str = 'val'
    flip: bool = True
    batch_size: Optional[int] = None

    def __post_init__(self) -> None:
        # what is wrong with the data is told before anything runs
        self.config(self.search, 'search', 0)

    def config(self, path: Path, folder: str, seed: int) -> Config:
        """One of the configs, ready to run in a folder of ``work_dir``."""
        cfg = prepare(path, self.work_dir / folder, seed, self.data, self.size,
                      self.epochs, self.val)
        if not self.flip:
            never_flip(cfg)
        if self.batch_size is not None:
            set_batch_size(cfg, self.batch_size)
        return cfg


def search(recipe: Recipe,
           seed: int = 0,
           progress: Optional[Callable] = None) -> Dict[str, float]:
    """Search; writes ``search/subnet`` and ``uniform/``, the comparison.

    The second is the supernet with all its blocks and evenly fewer channels:
    all ratios are equal, so the projection onto the budget, a common shift
    of the ratios, gives every layer the same share of its channels.

    Args:
        recipe (Recipe): What and how.
        seed (int): Of everything that is random.
        progress (callable, optional): Makes a hook from the search.

    Returns:
        dict: MACs and parameters of the supernet.

    Raises:
        SearchError: If the target cannot be met.
    """
    cfg = recipe.config(recipe.search, 'search', seed)
    cfg.model.target = recipe.target
    for hook in cfg.custom_hooks:
        if hook.type.endswith('ExportSubnetHook'):
            # the file of the config knows nothing of the data
            hook.retrain_base = str(_write_plain(recipe, seed))
    with logged(recipe.work_dir / 'search'):
        cfg.model.input_shape = input_shape_from_config(cfg)
        try:
            runner = Runner.from_cfg(cfg)
        except ValueError as error:  # of the pre-flight
            raise SearchError(f'the search cannot start: {error}') from error
        if progress is not None:
            runner.register_hook(progress(runner.model.search))
        runner.train()
        narrow_uniformly(runner.model.search, recipe.work_dir / 'uniform')
        whole = runner.model.search.preflight().supernet
    write_text(recipe.work_dir / 'supernet.json', json.dumps(whole))
    return whole


def _write_plain(recipe: Recipe, seed: int) -> Path:
    """Write the supernet's config with all that was filled in."""
    cfg = recipe.config(recipe.supernet, 'supernet', seed)
    for name in ('work_dir', 'experiment_name'):
        cfg.pop(name)
    recipe.work_dir.mkdir(parents=True, exist_ok=True)
    with whole_file(recipe.work_dir / 'supernet.py') as file:
        cfg.dump(file)
    return recipe.work_dir / 'supernet.py'


def train(recipe: Recipe,
          folder: str,
          subnet: Optional[Path],
          seed: int = 0,
          look_at: int = 0) -> Dict[str, Any]:
    """Train a network from scratch.

    Args:
        recipe (Recipe): What and how.
        folder (str): Where, below ``work_dir``.
        subnet (Path, optional): Manifest; None for the supernet.
        seed (int): Of everything that is random.
        look_at (int): Images of the validation to return detections of.

    Returns:
        dict: ``mAP`` and ``mAP_50`` in percent by split, after the last
        epoch with averaged weights, ``seconds`` and ``detections``: for each
        image its rows of x1, y1, x2, y2, score, class.
    """
    start = time.time()
    path = recipe.supernet if subnet is None else recipe.retrain
    cfg = recipe.config(path, folder, seed)
    if subnet is not None:
        cfg.model.subnet = str(subnet)
    with logged(recipe.work_dir / folder):
        runner = Runner.from_cfg(cfg)
        results = _Results()
        runner.register_hook(results)
        runner.train()
        if recipe.val != 'test' and recipe.data.has('test'):
            runner.test()
        with averaged_weights(runner):
            detections = detect(runner.model, runner.val_dataloader.dataset,
                                look_at)
    found = {recipe.val: results.val, 'test': results.test or results.val}
    return dict(found, seconds=time.time() - start, detections=detections)


def detect(model: nn.Module,
           dataset: Dataset,
           number: int,
           score_thr: float = .3) -> List[List[List[float]]]:
    """Detections on the first images of a data set."""
    model.eval()
    found = []
    for index in range(min(number, len(dataset))):
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        boxes = sample.pred_instances
        boxes = boxes[boxes.scores > score_thr]
        found.append(
            torch.cat(
                [boxes.bboxes, boxes.scores[:, None], boxes.labels[:, None]],
                1).tolist())
    return found


class _Results(Hook):
    """Keeps what the last validation and the last test found."""

    def __init__(self) -> None:
        self.val: Dict[str, float] = {}
        self.test: Dict[str, float] = {}

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.val = _percent(metrics)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self.test = _percent(metrics)


def _percent(metrics: Dict[str, float]) -> Dict[str, float]:
    """The two figures that tables show."""
    return {
        name: 100 * metrics[f'coco/bbox_{name}']
        for name in ('mAP', 'mAP_50')
    }
