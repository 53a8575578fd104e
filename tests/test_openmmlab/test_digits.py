# Copyright (c) dms_razor contributors. All rights reserved.
import sys

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.registry import DATASETS
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

from dms_razor.openmmlab.digits import DigitsDataset


def build(**kwargs):
    return DATASETS.build(dict(type='DigitsDataset', **kwargs))


def pixels(dataset):
    return [dataset[i]['img'].tobytes() for i in range(len(dataset))]


def test_splits_are_disjoint_and_complete():
    train, test = build(split='train'), build(split='test')
    assert (len(train), len(test)) == (1201, 596)
    file = load_digits()
    scans = np.rint(file.images * (255 / 16)).astype(np.uint8)
    assert sorted(pixels(train) + pixels(test)) == sorted(scan.tobytes()
                                                          for scan in scans)
    # no scan occurs twice in the file, so none is in both splits
    assert not set(pixels(train)) & set(pixels(test))


def test_labels_are_those_of_the_file():
    file = load_digits()
    truth = {
        np.rint(image * (255 / 16)).astype(np.uint8).tobytes(): int(label)
        for image, label in zip(file.images, file.target)
    }
    for split in ('train', 'test'):
        for item in build(split=split):
            assert item['gt_label'] == truth[item['img'].tobytes()]


def test_every_class_is_split_alike():
    train, test = build(split='train'), build(split='test')
    total = np.bincount(load_digits().target)
    assert np.array_equal(np.bincount(test.get_gt_labels()), total // 3)
    assert np.array_equal(
        np.bincount(train.get_gt_labels()), total - total // 3)
    assert train.CLASSES == tuple('0123456789')


def test_the_split_never_changes():
    assert pixels(build(split='test')) == pixels(build(split='test'))
    np.random.seed(3)
    assert pixels(build(split='train')) == pixels(DigitsDataset('train'))


def test_images_span_the_byte_range():
    images = np.stack([item['img'] for item in build(split='train')])
    assert images.shape == (1201, 8, 8) and images.dtype == np.uint8
    assert images.min() == 0 and images.max() == 255


def test_pipeline_of_mmpretrain():
    dataset = DATASETS.build(
        dict(
            type='DigitsDataset',
            split='test',
            pipeline=[dict(type='PackInputs')],
            _scope_='mmpretrain'))
    loader = DataLoader(
        dataset,
        batch_size=4,
        sampler=DefaultSampler(dataset, shuffle=False),
        collate_fn=pseudo_collate)
    batch = next(iter(loader))
    assert batch['inputs'][0].shape == (1, 8, 8)
    assert batch['inputs'][0].dtype == torch.uint8
    labels = [int(sample.gt_label) for sample in batch['data_samples']]
    assert labels == list(dataset.get_gt_labels()[:4])


def test_indices_and_other_shares():
    assert len(build(split='train', indices=7)) == 7
    assert len(build(split='test', test_every=2)) == 896
    assert 'load_digits' in repr(build(split='test'))


@pytest.mark.parametrize('wrong, message', [
    (dict(split='val'), "no split 'val'.*train, test"),
    (dict(test_every=1), 'test_every=1.*2 or more'),
    (dict(test_every=2.5), 'test_every=2.5.*integer'),
])
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        DigitsDataset(**wrong)


def test_scikit_learn_is_named_when_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        DigitsDataset('train')
