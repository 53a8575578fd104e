# Copyright (c) dms_razor contributors. All rights reserved.
"""Writes a network to a file that runs without its Python code."""
import warnings
from pathlib import Path
from typing import Callable, Optional, Union

import torch
from torch import Tensor, nn

from ..adapters.mutables import widths_without_mutables
from ..adapters.windows import windows_of_any_batch
from ..subnet.files import whole_file
from ..subnet.portable import FORMATS, WRITERS, DeployError, Names


def write_network(network: nn.Module,
                  images: Tensor,
                  path: Union[str, Path],
                  format: str,
                  check: Optional[Callable[[Path], None]] = None) -> Path:
    """Write a network; batches of any size go through it.

    Args:
        network (nn.Module): :class:`RawOutputs` or :class:`DetectedBoxes`.
        images (Tensor): An example input (B, C, H, W); all sizes but the
            batch are fixed. At least two images, since torch.export takes a
            batch of one for a constant.
        path (str | Path): The file; it appears whole. It ends as
            :data:`FORMATS` says, from which :func:`~dms_razor.deploy.load`
            knows its format.
        format (str): A key of :data:`FORMATS`.
        check (callable, optional): Looks at the written file under its
            temporary name. If it raises a DeployError, there is no file.

    Returns:
        Path: ``path``.

    Raises:
        DeployError: If the format is unknown, if ``path`` is no file of it,
            if torch cannot write this network in it, or what ``check``
            raises. Nothing is left of the file; an older one at ``path``
            stays as it is.
    """
    if format not in WRITERS:
        raise DeployError(f'there is no format {format!r}; use one of '
                          f'{list(WRITERS)}')
    path = Path(path)
    if path.suffix != FORMATS[format] or path.is_dir():
        raise DeployError(f'{path} is no file name for the format {format}; '
                          f'name a file that ends with {FORMATS[format]}')
    first = 'boxes' if network.names == ['detections'] else 'batch'
    names = Names(['images'], network.names, [True], first)
    if len(images) < 2:
        images = images.repeat(2, 1, 1, 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            with warnings.catch_warnings(), torch.no_grad(), \
                    windows_of_any_batch(), widths_without_mutables(network):
                warnings.simplefilter('ignore')
                WRITERS[format](network, (images, ), file, names)
            if check is not None:
                check(file)
    except DeployError:
        raise
    except OSError as error:
        raise DeployError(f'{path} cannot be written ({error}); name another '
                          'file or make room for it') from error
    except Exception as error:
        raise DeployError(
            f'{type(error).__name__} while writing {path.name}: {error}. Try '
            'another format, or the raw outputs of a detector instead of its '
            'boxes.') from error
    return path
