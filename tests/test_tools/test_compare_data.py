# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: the images, compared with what was written by hand."""
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tools.compare import data as module
from tools.compare.data import Images, list_files, load_images, subset
from tools.compare.experiment import Data, ExperimentError


@pytest.fixture
def folder(tmp_path):
    """Two classes, four images each; the left half is 40, the right 200."""
    for split in ('train', 'test'):
        for label, name in enumerate('ab'):
            (tmp_path / 'set' / split / name).mkdir(parents=True)
            for number in range(4):
                image = np.full((4, 4, 3), 40, np.uint8)
                image[:, 2:] = 200
                image[..., 2] = 10 * number + 100 * label
                Image.fromarray(image).save(tmp_path / 'set' / split / name /
                                            f'{2 * number + label:03d}.png')
    return tmp_path / 'set'


def test_pixels_are_means_of_those_they_cover(folder, tmp_path):
    images = load_images(str(folder), Data(size=2), tmp_path / 'cache')
    pixels, labels = images.train
    assert pixels.dtype == torch.uint8 and pixels.shape == (8, 3, 2, 2)
    assert images.classes == 2 and images.name == 'set'
    assert pixels[:, 0].unique().tolist() == [40, 200]
    assert (pixels[:, 0, :, 0] == 40).all()
    # blue says which image it is
    blue = pixels[:, 2, 0, 0]
    assert torch.equal(blue // 100, labels)
    assert sorted(blue.tolist()) == [0, 10, 20, 30, 100, 110, 120, 130]


def test_a_subset_does_not_depend_on_names_of_classes(folder, tmp_path):
    order = [file.name for file, _ in list_files(folder / 'train')]
    assert order == [f'{number:03d}.png' for number in range(8)]
    images = load_images(
        str(folder), Data(size=4, train_images=3), tmp_path / 'cache')
    expected = np.random.RandomState(0).permutation(8)[:3]
    assert images.train[1].tolist() == [int(i) % 2 for i in expected]
    assert len(images.test[1]) == 8


def test_decoded_once(folder, tmp_path, monkeypatch):
    first = load_images(str(folder), Data(size=4), tmp_path / 'cache')
    monkeypatch.setattr(module, '_read', None)
    again = load_images(str(folder), Data(size=4), tmp_path / 'cache')
    assert torch.equal(first.train[0], again.train[0])
    with pytest.raises(TypeError):  # another size has to be decoded
        load_images(str(folder), Data(size=2), tmp_path / 'cache')


@pytest.mark.parametrize('remove, message', [
    ('test', 'no folder "test": --data takes'),
    ('train/*/*', 'holds no images'),
])
def test_what_is_no_set_of_images(folder, tmp_path, remove, message):
    for path in list(folder.glob(remove)):
        path.rename(tmp_path / path.name) if path.is_dir() else path.unlink()
    with pytest.raises(ExperimentError, match=message):
        load_images(str(folder), Data(), tmp_path / 'cache')


def test_digits(tmp_path):
    images = load_images('digits', Data(size=16), tmp_path)
    assert len(images.train[1]) == 1201 and len(images.test[1]) == 596
    assert not images.flip and not list(tmp_path.iterdir())
    pixels, labels = load_digits(return_X_y=True)
    third = np.flatnonzero(labels == 7)[2]
    doubled = np.kron(pixels[third].reshape(8, 8), np.ones((2, 2)))
    scaled = torch.from_numpy(np.round(doubled * 255 / 16)).to(torch.uint8)
    sevens = images.test[0][images.test[1] == 7]
    assert (sevens[:, 1] == scaled).flatten(1).all(1).any()


def test_generated_images_are_always_the_same(tmp_path):
    first, again = (
        load_images('generated', Data(size=8), tmp_path) for _ in range(2))
    assert torch.equal(first.train[0], again.train[0])
    assert not torch.equal(first.train[0][:500], first.test[0])
    assert first.train[1].bincount().tolist() == [100] * 10


def images(shift=.25, flip=True, number=6):
    pixels = torch.arange(number * 48).reshape(number, 3, 4, 4)
    return Images('x', (pixels.to(torch.uint8), torch.arange(number)),
                  (pixels.to(torch.uint8), torch.arange(number)), number,
                  Data(size=4, mean=.5, std=.5, shift=shift, flip=flip))


def test_an_epoch_shows_every_image_once():
    batches = images(shift=0, flip=False).batches(2, seed=3)
    epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
    for epoch in epochs:
        labels = torch.cat([labels for _, labels in epoch])
        assert sorted(labels.tolist()) == list(range(6))
    inputs, labels = epochs[0][0]
    expected = images().train[0][labels].float() / 255 * 2 - 1
    torch.testing.assert_close(inputs, expected)
    again = next(images(shift=0, flip=False).batches(2, seed=3))
    assert torch.equal(again[0], inputs)
    other = next(images(shift=0, flip=False).batches(6, seed=4))
    assert other[1].tolist() != torch.cat([y for _, y in epochs[0]]).tolist()


def test_one_shift_a_batch_and_a_flip_an_image():
    source = images()
    normal = source.normal(source.train[0])
    padded = torch.nn.functional.pad(normal, (1, 1, 1, 1))
    seen = set()
    for _, (inputs, labels) in zip(range(30), source.batches(6, seed=0)):
        found = []
        for down in range(3):
            for right in range(3):
                window = padded[labels, :, down:down + 4, right:right + 4]
                same = (window == inputs).flatten(1).all(1)
                mirrored = (window.flip(3) == inputs).flatten(1).all(1)
                if (same | mirrored).all():
                    found.append((down, right, int(mirrored.sum())))
        shift, = found
        seen.add(shift)
    assert len({shift[:2] for shift in seen}) > 5
    assert len({shift[2] for shift in seen}) > 2


def test_digits_are_never_mirrored():
    source = images(shift=0)
    source.flip = False
    for _, (inputs, labels) in zip(range(5), source.batches(6, seed=0)):
        assert torch.equal(inputs, source.normal(source.train[0])[labels])


def test_subset_of_all_is_all():
    part = torch.arange(5)[:, None], torch.arange(5)
    assert sorted(subset(part, None)[1].tolist()) == list(range(5))
