# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches that go on from each of five checkpoints, and end the same."""
import copy
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.config import Config
from mmengine.runner import Runner

from .kills import config_of, digest

#: Kind of search -> what it changes in the common one, by dotted name.
KINDS: Dict[str, Dict[str, Any]] = {
    'iteration loop': {},
    'epoch loop': {
        'model.search': dict(epochs=4, width_only_epochs=2),
        'train_dataloader.sampler.type': 'DefaultSampler',
        'train_dataloader.dataset.indices': 8,
        'train_cfg': dict(by_epoch=True, max_epochs=6),
        'default_hooks.checkpoint.by_epoch': True,
    },
    'momentum, EMA, bf16': {
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.dtype': 'bfloat16',
        'ema': dict(type='EMAHook', momentum=.1),
    },
    'widths alone': {
        'model.search': dict(iters=3, width_only_iters=9),
        'points': (4, 6, 7, 9, 11),
    },
}
_POINTS = (1, 3, 6, 9, 11)


@dataclass
class Row:
    """What came of one kind of search."""
    kind: str
    points: List[int] = field(default_factory=list)
    faults: List[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.faults

    def cells(self) -> Dict[str, object]:
        return {
            'search': self.kind,
            'resumed after': ', '.join(map(str, self.points)),
            'ended otherwise': '; '.join(self.faults) or 0
        }


def run(kind: str, of: slice = slice(None)) -> Row:
    """Search once, and once more from each of five checkpoints.

    Args:
        kind (str): A key of :data:`KINDS`.
        of (slice): Which of the five.
    """
    row = Row(kind)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = dict(KINDS[kind])
        points = settings.pop('points', _POINTS)
        _train(settings, folder / 'whole')
        expected = digest(folder / 'whole')
        by_epoch = 'train_cfg' in settings
        for point in ((1, 2, 3, 4, 5) if by_epoch else points)[of]:
            name = f'{"epoch" if by_epoch else "iter"}_{point}'
            _train(settings, folder / name, folder / 'whole' / f'{name}.pth')
            row.points.append(point)
            if digest(folder / name) != expected:
                row.faults.append(name)
    return row


def _train(settings: Dict[str, Any],
           work_dir: Path,
           checkpoint: Optional[Path] = None) -> None:
    """Train as configured, from a checkpoint if there is one."""
    settings = copy.deepcopy(settings)
    work_dir.mkdir()
    (work_dir / 'search.py').write_text(config_of(-1, 'kill'))
    cfg = Config.fromfile(work_dir / 'search.py')
    cfg.model.search = dict(iters=8, width_only_iters=4)
    cfg.train_cfg.max_iters = 12
    cfg.randomness = dict(seed=0)  # this process may do other things later
    # what is drawn for images and batches has to be drawn again
    cfg.train_dataloader.dataset.pipeline.insert(
        0, dict(type='RandomCrop', crop_size=8, padding=1))
    cfg.model.architecture.train_cfg = dict(
        augments=dict(type='Mixup', alpha=.8))
    cfg.custom_hooks[1].pop('budgets')
    if 'ema' in settings:
        cfg.custom_hooks.append(settings.pop('ema'))
    for name in ('model.search', 'train_cfg'):  # in place of what is there
        if name in settings:
            part, _, last = name.rpartition('.')
            (cfg[part] if part else cfg)[last] = settings.pop(name)
    cfg.merge_from_dict(settings)
    cfg.update(
        work_dir=str(work_dir),
        experiment_name=f'resumes_{uuid.uuid4()}',
        log_level='ERROR',
        resume=checkpoint is not None,
        load_from=checkpoint and str(checkpoint))
    Runner.from_cfg(cfg).train()
