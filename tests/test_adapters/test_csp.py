# Copyright (c) dms_razor contributors. All rights reserved.
"""The slim C2f stage: the standard one at full size, and without a block."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import torch
from mmyolo.models.layers.yolo_bricks import CSPLayerWithTwoConv

from dms_razor.adapters.registry import RemovedBlock, make_slim, slots_of


def test_full_size_is_the_standard_stage():
    stage, x = CSPLayerWithTwoConv(6, 8, num_blocks=2), torch.randn(2, 6, 4, 4)
    expected = stage.eval()(x)
    assert torch.equal(make_slim(stage, 'CSPLayerWithTwoConv')(x), expected)
    assert stage.splits == [4, 4]


def test_without_a_block_its_slot_goes_to_the_one_before():
    """A block that returns its input: its slot repeats the slot before."""
    stage, x = CSPLayerWithTwoConv(6, 8, num_blocks=2), torch.randn(2, 6, 4, 4)
    stage.eval().blocks[0] = torch.nn.Identity()
    expected = stage(x)
    slots = slots_of(stage)
    assert slots.starts == [('blocks.0', 8), ('blocks.1', 12)]
    slim = make_slim(stage, 'CSPLayerWithTwoConv')
    slim.blocks[0] = RemovedBlock()
    conv = slim.get_submodule(slots.layer)
    weight = conv.weight.detach()
    slot = slice(8, 8 + slots.width)
    before = slice(slot.start - slots.width, slot.start)
    weight[:, before] += weight[:, slot]
    conv.weight = torch.nn.Parameter(
        torch.cat([weight[:, :slot.start], weight[:, slot.stop:]], 1))
    torch.testing.assert_close(slim(x), expected)
