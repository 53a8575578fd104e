# Copyright (c) dms_razor contributors. All rights reserved.
"""The slim C2f stage: the standard one at full size, and without a block."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import torch
from mmyolo.models.layers.yolo_bricks import CSPLayerWithTwoConv
from torch import nn

from dms_razor import Search
from dms_razor.adapters.registry import RemovedBlock, make_slim, slots_of
from dms_razor.subnet import export_subnet


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


def test_slots_that_are_added_up_have_one_gradient(tmp_path):
    """So the moments of those that stay are theirs, and not the sum."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), CSPLayerWithTwoConv(6, 8, num_blocks=3),
        nn.Conv2d(8, 4, 1)).double().eval()
    images = torch.randn(2, 3, 8, 8).double()
    search = Search(model, images[:1], '60%', total_steps=10)
    kept = torch.ones(search.space.layout.E, dtype=torch.bool)
    stage, = (u for u in search.space.units if u.kind == 'depth')
    place = search.space.layout.slice_of(search.space.layout.index(stage.name))
    kept[place.start:place.start + 2] = False
    search.bank.give(kept)
    search.bank.mode = 'given'

    def train(network, optimizer):
        optimizer.zero_grad()
        network(images).square().sum().backward()
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=.9)
    train(model, optimizer)
    subnet = export_subnet(
        tmp_path / 'subnet', model, search.space, kept, picture=False)
    weight = subnet.model.get_parameter('1.final_conv.conv.weight')
    whole = model.get_parameter('1.final_conv.conv.weight')
    assert (weight.shape[1], whole.shape[1]) == (12, 20)
    new = torch.optim.SGD(subnet.model.parameters(), 1e-3, momentum=.9)
    assert subnet.carry_over(model, optimizer, new)
    before = optimizer.state[whole]['momentum_buffer']
    found = new.state[weight]['momentum_buffer']
    assert torch.equal(found, before[:, [*range(8), *range(16, 20)]])
    assert torch.allclose(before[:, 4:8], before[:, 8:12])
