# Copyright (c) dms_razor contributors. All rights reserved.
"""Top-k without normalisation: a threshold on the importances themselves."""
import math

import torch

from dms_razor.core import Bank, Layout, Unit

LAYOUT = Layout([Unit('a', 'width', 4, groups=2), Unit('b', 'depth', 2)])
IMPORTANCE = [.1, .2, .9, .8, .5, .4, .3, .7, 0., 1.]


def made(*thresholds):
    bank = Bank(LAYOUT, selector='unnormalised')
    bank.importance = torch.tensor(IMPORTANCE).double()
    bank.selector.numbers = torch.tensor(thresholds).double()
    bank.refresh()
    return bank


def test_masks_and_counts_by_hand():
    bank = made(.5, .25)
    masks = [1 / (1 + math.exp(-4 * (c - .5))) for c in IMPORTANCE[:8]]
    masks += [1 / (1 + math.exp(-8 * (c - .25))) for c in IMPORTANCE[8:]]
    torch.testing.assert_close(
        bank.masks.detach().double(),
        torch.tensor(masks).double(),
        atol=1e-6,
        rtol=0)
    wanted = torch.tensor([sum(masks[:8]) / 2, sum(masks[8:])]).double()
    torch.testing.assert_close(bank.counts(), wanted)
    assert bank.kept().tolist() == [2, 1]
    assert bank.hard().tolist() == [
        False, False, True, True, True, False, False, True, False, True
    ]


def test_counts_fall_with_the_importances():
    """What the normalisation of the paper prevents."""
    bank = made(.5, .25)
    before = bank.counts()
    bank.importance = bank.importance / 10
    bank.refresh()
    assert bank.masks.max() < .5 and (bank.counts() < before).all()
