# Copyright (c) dms_razor contributors. All rights reserved.
"""The image that a network is traced and counted on."""
from typing import Iterator, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

# What transforms of the OpenMMLab packages call their output size, and the
# transforms that decide it; a later one in a pipeline wins.
_SIZE_KEYS = ('crop_size', 'scale', 'img_scale', 'size')
_SIZE_TYPES = ('crop', 'resize', 'mosaic')


def image_shape(
        input_shape: Union[int, Sequence[int]]) -> Tuple[int, int, int]:
    """Bring the ways to state an input shape to (channels, height, width).

    Args:
        input_shape (Sequence[int] | int): ``224``, ``(3, 224, 224)`` or
            ``(1, 3, 224, 224)``.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(input_shape, int):
        input_shape = (3, input_shape, input_shape)
    shape = tuple(input_shape)[-3:]
    if (len(shape) != 3 or len(tuple(input_shape)) > 4
            or any(not isinstance(n, int) or n < 1 for n in shape)):
        raise ValueError(
            f'input_shape {input_shape!r} is not an image shape; give (3, '
            'height, width) or the side of a square image')
    return shape


def example_image(input_shape: Union[None, int, Sequence[int]],
                  model: nn.Module) -> Tensor:
    """A random image on the model's device, of shape (1, C, H, W).

    Args:
        input_shape (Sequence[int] | int | None): See :func:`image_shape`.
        model (nn.Module): Decides device and dtype.

    Raises:
        ValueError: If there is no shape.
    """
    if input_shape is None:
        raise ValueError(
            'the input shape of the network is not known; set `input_shape` '
            'of the mutator, for example input_shape=(3, 224, 224)')
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *image_shape(input_shape), generator=generator)
    return image.to(next(model.parameters()))


def input_shape_from_config(cfg) -> Tuple[int, int, int]:
    """Read the input size off a config's pipelines.

    The test (then validation, then training) pipeline is searched for the
    last transform that crops or resizes: the size a deployed network sees.
    Detectors whose data preprocessor pads images to a multiple see that.

    Args:
        cfg (Config): A whole config.

    Returns:
        tuple[int, int, int]: Channels, height, width.

    Raises:
        ValueError: If no pipeline says it.
    """
    model = cfg.get('model') or {}
    model = model.get('architecture') or model
    # a detector has it inside, a classifier beside it
    preprocessor = (
        model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})
    # the backbone's input channels, else as many as means, else 3
    channels = (model.get('backbone') or {}).get('in_channels')
    if channels is None:
        channels = len(preprocessor.get('mean') or (0, 0, 0))
    step = preprocessor.get('pad_size_divisor') or 1
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        transforms = _transforms((cfg.get(name) or {}).get('dataset'))
        sizes = list(filter(None, map(_output_size, transforms)))
        if sizes:
            return (int(channels), *(-(-n // step) * step for n in sizes[-1]))
    raise ValueError(
        'the input size is in none of the config\'s pipelines (no cropping or '
        'resizing transform); set model.input_shape, for example input_shape='
        '(3, 224, 224)')


def _transforms(dataset) -> Iterator[dict]:
    """The transforms of a dataset config, wrapped datasets included."""
    if isinstance(dataset, dict):
        for inner in (dataset.get('dataset'),
                      *(dataset.get('datasets') or ())):
            yield from _transforms(inner)
        yield from (transform for transform in dataset.get('pipeline') or ()
                    if isinstance(transform, dict))


def _output_size(transform: dict) -> Optional[Tuple[int, int]]:
    """(height, width) that a transform gives, None if it does not say."""
    kind = str(transform.get('type', '')).lower()
    if 'resizeedge' in kind or not any(t in kind for t in _SIZE_TYPES):
        return None
    for key in _SIZE_KEYS:
        size = transform.get(key)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) == 2 and all(
                isinstance(n, int) for n in size):
            # OpenMMLab's `scale` is (width, height), `crop_size` (h, w).
            return tuple(size) if key == 'crop_size' else tuple(size[::-1])
    return None
