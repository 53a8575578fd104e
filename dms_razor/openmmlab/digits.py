# Copyright (c) dms_razor contributors. All rights reserved.
"""The handwritten digits that ship inside scikit-learn, for mmpretrain.

1,797 scans of 8 x 8 pixels and 17 grey levels, the test part of "Optical
Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, UCI
Machine Learning Repository, CC BY 4.0). Nothing is downloaded: scikit-learn
carries the file.
"""
from typing import List

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset

SPLITS = ('train', 'test')


# In mmengine's root registry, so that a config finds it under any scope.
@DATASETS.register_module()
class DigitsDataset(BaseDataset):
    """Scikit-learn's handwritten digits, 8 x 8 pixels, one grey channel.

    The split is part of the dataset and uses no random number: of every
    class, in the order of the file, each ``test_every``-th scan belongs to
    the test split and all others to the training split. The file is ordered
    by writer, so both splits see all the writers.

    Args:
        split (str): 'train' or 'test'.
        test_every (int): One scan in so many is a test scan, at least 2.
            Defaults to 3, which gives 1,201 scans to train and 596 to test.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``
            (``pipeline``, ``indices``, ``metainfo``, …).

    Every item has ``img``, a uint8 array of shape (8, 8) with values from 0
    (paper) to 255 (ink), ``gt_label``, an int from 0 to 9, and
    ``sample_idx``.

    Raises:
        ValueError: If ``split`` or ``test_every`` is out of range.
        ImportError: If scikit-learn is not installed.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(self, split: str = 'train', test_every: int = 3, **kwargs):
        if split not in SPLITS:
            raise ValueError(f"DigitsDataset has no split '{split}': "
                             f"choose one of {', '.join(SPLITS)}.")
        if not isinstance(test_every, int) or test_every < 2:
            raise ValueError(
                f'DigitsDataset cannot split with test_every={test_every}: '
                'give an integer of 2 or more, one scan in so many is kept '
                'for testing.')
        self.split = split
        self.test_every = test_every
        kwargs.setdefault('test_mode', split == 'test')
        # one array for all workers saves nothing for scans this few, and
        # costs a collection of all garbage
        kwargs.setdefault('serialize_data', False)
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read the scans of this split, in the order of the file.

        Returns:
            list[dict]: One dict for each scan, with ``img`` (uint8, (8, 8))
            and ``gt_label`` (int).
        """
        images, labels = _load()
        testing = _test_mask(labels, self.test_every)
        return [
            dict(img=images[i], gt_label=int(labels[i]))
            for i in np.flatnonzero(testing == (self.split == 'test'))
        ]

    def extra_repr(self) -> List[str]:
        """The lines that ``repr`` adds to the basic ones."""
        return [
            f'Split: \t{self.split}', 'Source: \tsklearn.datasets.load_digits'
        ]


def _load():
    """The whole file: images uint8 (1797, 8, 8), labels int64 (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'DigitsDataset reads the digits that ship inside scikit-learn, '
            'which is not installed: pip install scikit-learn') from error
    bunch = load_digits()
    # 17 grey levels, 0 to 16, are spread over the range of a byte
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


def _test_mask(labels: np.ndarray, test_every: int) -> np.ndarray:
    """Which scans are for testing: every ``test_every``-th of each class."""
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        mask[np.flatnonzero(labels == label)[test_every - 1::test_every]] = 1
    return mask
