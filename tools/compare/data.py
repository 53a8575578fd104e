# Copyright (c) dms_razor contributors. All rights reserved.
"""Images: a folder of classes, digits, or patterns out of nothing.

A folder is ``FOLDER/{train,test}/CLASS/*.jpg`` (or png). It is decoded once;
what an experiment uses of it is kept as uint8 in one file beside the results.
"""
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.compare.experiment import Data, ExperimentError
from tools.compare.store import whole_file

SUFFIXES = ('.jpg', '.jpeg', '.png')
Part = Tuple[Tensor, Tensor]


@dataclass
class Images:
    """A training and a test set.

    Attributes:
        name (str): Of the source, without its path.
        train, test (tuple): Images uint8 ``[N, 3, S, S]`` and labels int64
            ``[N]``.
        classes (int): Number of classes.
        settings (Data): How they are used.
        flip (bool): Whether a mirrored image is one of its class.
    """
    name: str
    train: Part
    test: Part
    classes: int
    settings: Data
    flip: bool = True

    def to(self, device: str) -> 'Images':
        """The same images elsewhere, where all batches are made."""
        train, test = (
            tuple(tensor.to(device) for tensor in part)
            for part in (self.train, self.test))
        return replace(self, train=train, test=test)

    @property
    def example(self) -> Tensor:
        """What MACs are counted on: zeros ``[1, 3, S, S]``."""
        return torch.zeros(
            1, *self.train[0].shape[1:], device=self.train[0].device)

    def normal(self, images: Tensor) -> Tensor:
        """uint8 to float, normalised."""
        scaled = images.float().div_(255)
        return scaled.sub_(self.settings.mean).div_(self.settings.std)

    def batches(self, batch: int, seed: int) -> Iterator[Part]:
        """Endless shuffled batches, shifted together and mirrored singly."""
        images, labels = self.train
        generator = torch.Generator().manual_seed(seed)
        while True:
            # Drawn on the CPU, so that the order is the same everywhere.
            order = torch.randperm(
                len(images), generator=generator).to(images.device)
            for start in range(0, len(images) - batch + 1, batch):
                chosen = order[start:start + batch]
                yield (self._augmented(images[chosen],
                                       generator), labels[chosen])

    def plain_batches(self, batch: int, seed: int) -> Iterator[Part]:
        """One shuffled epoch without augmentation, for statistics."""
        images, labels = self.train
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(
            len(images), generator=generator).to(images.device)
        for chosen in order.split(batch):
            yield self.normal(images[chosen]), labels[chosen]

    def test_batches(self, batch: int = 500) -> Iterator[Part]:
        """The test set once, in order."""
        for images, labels in zip(*(part.split(batch) for part in self.test)):
            yield self.normal(images), labels

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        images, side = self.normal(images), images.shape[-1]
        pad = round(side * self.settings.shift)
        if pad:
            right, down = torch.randint(
                0, 2 * pad + 1, (2, ), generator=generator).tolist()
            images = F.pad(images, (pad, ) * 4)
            images = images[:, :, down:down + side, right:right + side]
        if not (self.flip and self.settings.flip):
            return images
        mirrored = torch.rand(len(images), generator=generator) < .5
        mirrored = mirrored.to(images.device)[:, None, None, None]
        return torch.where(mirrored, images.flip(3), images)


def load_images(source: Optional[str], settings: Data, cache: Path) -> Images:
    """The images of an experiment.

    Args:
        source (str, optional): A folder, 'digits' or 'generated'. By default
            digits where scikit-learn is installed, else generated ones.
        settings (Data): What is used of them.
        cache (Path): Folder for what was decoded.

    Raises:
        ExperimentError: There are no images, or a package is missing.
    """
    if source is None:
        source = 'digits' if _has_digits() else 'generated'
    if source == 'digits':
        train, test = (_sized(part, settings.size) for part in _digits())
    elif source == 'generated':
        train, test = (_sized(part, settings.size) for part in _generated())
    else:
        return _of_folder(Path(source), settings, cache)
    train = subset(train, settings.train_images)
    test = subset(test, settings.test_images)
    return Images(source, train, test, 10, settings, flip=False)


def subset(part: Part, number: Optional[int]) -> Part:
    """The first ``number`` in the order that seed 0 draws."""
    order = torch.from_numpy(
        np.random.RandomState(0).permutation(len(part[1]))[:number])
    return part[0][order], part[1][order]


def _has_digits() -> bool:
    try:
        import sklearn.datasets  # noqa: F401
    except ImportError:
        return False
    return True


def _digits() -> Tuple[Part, Part]:
    """1,201 and 596 scans: of every class each third one is for testing."""
    if not _has_digits():
        raise ExperimentError('--data digits needs scikit-learn: install it, '
                              'or use --data generated')
    from sklearn.datasets import load_digits
    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 1, 8, 8) * (255 / 16))
    number = np.zeros(len(labels), int)
    for label in range(10):
        number[labels == label] = np.arange((labels == label).sum())
    test = number % 3 == 2
    return tuple((torch.from_numpy(images[those].astype(np.uint8)),
                  torch.from_numpy(labels[those]).long())
                 for those in (~test, test))


def _generated(number: int = 1000) -> Tuple[Part, Part]:
    """Ten random patterns of 8 x 8 pixels under noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(10, 1, 8, 8, generator=generator)
    parts = []
    for count in (number, number // 2):
        labels = torch.arange(count) % 10
        noise = torch.rand(count, 1, 8, 8, generator=generator)
        mixed = .4 * patterns[labels] + .6 * noise
        parts.append((mixed.mul(255).to(torch.uint8), labels))
    return tuple(parts)


def _sized(part: Part, size: int) -> Part:
    """Square grey images to three channels of another size, by area."""
    images = F.interpolate(part[0].float(), (size, size), mode='area')
    return images.round().to(torch.uint8).expand(-1, 3, -1, -1), part[1]


def _of_folder(folder: Path, settings: Data, cache: Path) -> Images:
    parts = []
    for split, number in (('train', settings.train_images),
                          ('test', settings.test_images)):
        if not (folder / split).is_dir():
            raise ExperimentError(
                f'{folder} has no folder "{split}": --data takes a folder '
                'with train/CLASS/*.jpg and test/CLASS/*.jpg (or png), '
                '"digits" or "generated"')
        parts.append(_decoded(folder / split, settings.size, number, cache))
    classes = sorted(
        p.name for p in (folder / 'train').iterdir() if p.is_dir())
    if max(int(part[1].max()) for part in parts) >= len(classes):
        raise ExperimentError(f'{folder}/test has classes that train lacks')
    return Images(folder.name, *parts, len(classes), settings)


def _decoded(folder: Path, size: int, number: Optional[int],
             cache: Path) -> Part:
    """Images of a folder, from the cache if they were decoded before."""
    files = list_files(folder)
    if not files:
        raise ExperimentError(f'{folder} holds no images: they are looked for '
                              f'as CLASS/*{", *".join(SUFFIXES)}')
    order = np.random.RandomState(0).permutation(len(files))[:number]
    key = hashlib.sha1(
        f'{folder.resolve()} {size} {number} {len(files)}'.encode())
    path = cache / f'{folder.name}-{size}px-{key.hexdigest()[:12]}.npz'
    if not path.exists():
        images = _read([files[i][0] for i in order], size)
        labels = np.array([files[i][1] for i in order])
        with whole_file(path) as file:
            np.savez(file, images=images, labels=labels)
    with np.load(path) as stored:
        return (torch.from_numpy(stored['images']),
                torch.from_numpy(stored['labels']).long())


def list_files(folder: Path) -> List[Tuple[Path, int]]:
    """Files and labels, by the name of the file, then by class.

    By name first, so that a subset is the same whatever the classes are
    called.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return sorted(
        ((file, label) for label, path in enumerate(classes)
         for file in path.iterdir() if file.suffix.lower() in SUFFIXES),
        key=lambda item: (item[0].name, item[1]))


def _read(files: List[Path], size: int) -> np.ndarray:
    """uint8 ``[N, 3, size, size]``, each pixel the mean of those it covers."""
    try:
        from PIL import Image
    except ImportError:
        raise ExperimentError('reading images needs Pillow: install it, or '
                              'use --data digits') from None
    images = np.empty((len(files), 3, size, size), np.uint8)
    for number, file in enumerate(files):
        if number % 5000 == 0:
            print(
                f'decoding {file.parent.parent}: {number:,} of '
                f'{len(files):,}',
                flush=True)
        with Image.open(file) as image:
            small = image.convert('RGB').resize((size, size), Image.BOX)
        images[number] = np.asarray(small).transpose(2, 0, 1)
    return images
