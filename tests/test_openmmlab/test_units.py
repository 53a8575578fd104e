# Copyright (c) dms_razor contributors. All rights reserved.
import random

import pytest
import torch
from mmrazor.registry import MODELS

from dms_razor.core.bank import Bank
from dms_razor.core.layout import Layout, Unit
from dms_razor.openmmlab.units import DiffTopkChannelUnit, DiffTopkDepthUnit


@pytest.fixture
def bank():
    return Bank(
        Layout([
            Unit('conv', 'width', 6, groups=2, step=4, least=2),
            Unit('fixed', 'width', 3, least=3),
            Unit('stage', 'depth', 3, members=('a', 'b', 'c')),
        ]))


@pytest.fixture
def channels(bank):
    return DiffTopkChannelUnit.from_bank(bank, 0)


@pytest.fixture
def blocks(bank):
    return DiffTopkDepthUnit.from_bank(bank, 2)


def test_registered():
    assert MODELS.get('DiffTopkChannelUnit') is DiffTopkChannelUnit
    assert MODELS.get('DiffTopkDepthUnit') is DiffTopkDepthUnit


def test_channels_count_groups_and_steps(channels, bank):
    assert channels.name == channels.alias == 'conv'
    assert channels.num_channels == 48 and channels.is_mutable
    assert channels.current_choice == 48
    assert (channels.min_choice, channels.max_choice) == (16, 48)
    channels.current_choice = 24
    assert bank.kept().tolist() == [3, 3, 3]
    assert channels.ratio == .5


def test_choice_writes_hard_masks_of_the_most_important(channels, bank):
    bank.importance[:12] = torch.tensor([1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1.])
    bank.refresh()
    channels.current_choice = 16
    assert bank.current[:12].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize('choice', [20, 8, 56, -8])
def test_impossible_choices_change_nothing(channels, bank, choice):
    with pytest.raises(ValueError, match='multiple of 8 from 16 to 48'):
        channels.current_choice = choice
    assert bank.kept().tolist() == [6, 3, 3]


def test_samples_are_valid_and_reach_both_ends(channels):
    random.seed(0)
    samples = {channels.sample_choice() for _ in range(200)}
    assert samples == {16, 24, 32, 40, 48}


def test_a_unit_without_choice_is_not_mutable(bank):
    unit = DiffTopkChannelUnit.from_bank(bank, 1)
    assert not unit.is_mutable and unit.sample_choice() == 3


def test_blocks_can_all_go(blocks, bank):
    assert blocks.blocks == ('a', 'b', 'c')
    assert blocks.mutable_prefix == 'depth'
    blocks.fix_chosen(0)
    assert not bank.hard()[-3:].any() and blocks.current_choice == 0
    blocks.fix_chosen()
    assert blocks.current_choice == 0


def test_views_see_what_the_search_does(channels, bank):
    bank.ratios[0] = .4
    bank.refresh()
    assert channels.current_choice == 4 * 8


def test_unit_holds_no_state_of_its_own(channels):
    assert not channels.state_dict() and not list(channels.children())
    assert channels.config_template() == dict(choice=48)
