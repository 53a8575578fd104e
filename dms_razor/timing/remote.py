# Copyright (c) dms_razor contributors. All rights reserved.
"""Tables of a device on which nothing but ONNX Runtime is installed.

Everything that a table needs is written into one file, beside the script
:mod:`.on_device` that times it there; the times come back as JSON.
"""
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import torch
from torch import nn

from ..core.latency import LatencyError, layers_of
from ..core.plain_json import loads
from ..space import Space
from ..subnet.files import whole_file
from . import on_device
from .bench import Job
from .clock import exported
from .measure import GRID, gather

_WEIGHT = .01  # of a part; equal weights take no room once compressed


class Written:
    """A bench that writes networks down instead of timing them.

    Args:
        archive (ZipFile): Where to.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.groups: List[List[str]] = []
        self.files: Dict[str, Any] = {}

    def __call__(self, jobs: Sequence[Job]) -> List[Dict[str, float]]:
        """Times that say nothing."""
        for job in jobs:
            model, inputs, forward = job.build()
            if not job.trained:
                for parameter in model.parameters():
                    nn.init.constant_(parameter, _WEIGHT)
            content, feed = exported(model, inputs, forward)
            file = f'{len(self.files)}.onnx'
            self.archive.writestr(file, content)
            self.files[job.name] = dict(
                file=file,
                inputs={
                    name: [list(x.shape), str(x.dtype)]
                    for name, x in feed.items()
                })
        self.groups.append([job.name for job in jobs])
        return [dict(ms=1., spread=0.) for _ in jobs]


def write_parts(
        model: nn.Module,
        space: Space,
        folder: Union[str, Path],
        forward: Optional[Callable] = None,
        *,
        grid: Sequence[float] = GRID,
        whole: int = 9,
        held_out: int = 0,
        steps: int = 3,
        progress: Callable[[int, int], None] = lambda done, of: None) -> Path:
    """Write what a device has to time, and the script that does it.

    Args:
        folder (str | Path): Gets ``parts.zip`` and ``measure_parts.py``.
        model, space, forward, grid, whole, held_out, steps, progress: As for
            :func:`.measure.measure`; those of reading have to be the same.

    Returns:
        Path: The folder.

    Raises:
        TimingError: Something cannot be exported to ONNX.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / 'parts.zip') as temporary:
        with zipfile.ZipFile(
                temporary, 'w', zipfile.ZIP_DEFLATED,
                compresslevel=1) as archive:
            bench = Written(archive)
            gather(
                dict(layers=layers_of(space.resource),
                     grid=list(grid)), model, space, bench, forward, whole,
                held_out, steps, lambda: None, progress)
            archive.writestr(
                'parts.json',
                json.dumps(
                    dict(
                        format=on_device.PARTS,
                        torch=torch.__version__,
                        groups=bench.groups,
                        files=bench.files)))
    shutil.copyfile(on_device.__file__, folder / 'measure_parts.py')
    return folder


class Elsewhere:
    """A bench that knows what a device took.

    Args:
        path (str | Path): What ``measure_parts.py`` wrote there.

    Raises:
        LatencyError: It is something else.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = str(path)
        try:
            found = loads(Path(path).read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise LatencyError(
                f'{self.path!r} cannot be read as times of a device ({error});'
                ' name what measure_parts.py wrote there') from error
        if not isinstance(found, dict) or \
                found.get('format') != on_device.TIMES:
            raise LatencyError(
                f'{self.path!r} holds no times of a device: its format is not '
                f'{on_device.TIMES!r}. Name what measure_parts.py wrote there')
        self.setting, self.times = found['setting'], found['times']

    def describe(self) -> Dict[str, Any]:
        """The setting and the machine there, as plain data."""
        return self.setting

    def __call__(self, jobs: Sequence[Job]) -> List[Dict[str, float]]:
        """``ms`` and ``spread`` of each job.

        Raises:
            LatencyError: It was not timed there.
        """
        for job in jobs:
            if job.name not in self.times:
                raise LatencyError(
                    f'{self.path!r} has no time of "{job.name}": it is '
                    'unfinished (run measure_parts.py once more, it goes on), '
                    'or the parts were written for another network, input '
                    'size or --held-out')
        return [self.times[job.name] for job in jobs]
