# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked layers: ordinary to everything but their own forward."""
import copy

import pytest
import torch
from equality import assert_true
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from toy_nets import plain_data, plain_net

from dms_razor.masking import MaskedLayer, attach, unmask
from dms_razor.trace import trace


def masked_net():
    """A network, its space, and masks of 0.2 to 1 that want a gradient."""
    net, images = plain_net(), plain_data()[0]
    space = trace(net, images[:1])
    masks = torch.linspace(.2, 1, space.layout.E).requires_grad_()
    reader = attach(net, space, lambda: masks)
    return net, space, masks, reader


def test_a_masked_layer_is_ordinary_from_outside():
    net, plain = masked_net()[0], plain_net()
    assert list(net.state_dict()) == list(plain.state_dict())
    assert isinstance(net.fc, nn.Linear) and isinstance(net.fc, MaskedLayer)
    assert isinstance(net.fc.weight, nn.Parameter)
    nn.init.constant_(net.fc.weight, 3.)
    assert bool((net.state_dict()['fc.weight'] == 3).all())


def test_unmask_restores_classes_and_outputs():
    net, _, _, _ = masked_net()
    images, _ = plain_data()
    types = [type(m) for m in plain_net().modules()]
    expected = plain_net()(images)
    assert not torch.allclose(net(images), expected)
    unmask(net)
    assert [type(m) for m in net.modules()] == types
    assert torch.equal(net(images), expected)


def test_attach_again_changes_nothing():
    net, space, masks, _ = masked_net()
    images, _ = plain_data()
    before = net(images)
    attach(net, space, lambda: masks)
    assert torch.equal(net(images), before)


def test_masks_equal_masked_activations():
    """By hand: every layer's input times its mask, branches times theirs."""
    net, space, masks, _ = masked_net()
    images, _ = plain_data()
    plain = plain_net()
    place = {
        u.name: masks[space.layout.slice_of(i)].view(1, -1, 1, 1)
        for i, u in enumerate(space.units)
    }
    depth = masks[space.layout.slice_of(len(space.units) - 1)]
    x = F.relu(plain.stem(images))
    for number, block in enumerate(plain.blocks):
        hidden = F.relu(block.conv1(x * place['stem']))
        hidden = hidden * place[f'blocks.{number}.conv1']
        x = F.relu(x + depth[number] * block.conv2(hidden))
    expected = plain.fc(x.mean((2, 3)) * place['stem'].flatten())
    torch.testing.assert_close(net(images), expected)
    found = torch.autograd.grad(net(images).square().sum(), masks)
    wanted = torch.autograd.grad(expected.square().sum(), masks)
    torch.testing.assert_close(found, wanted)


def test_reader_knows_who_has_read():
    net, space, _, reader = masked_net()
    assert len(reader.unread_units(space)) == space.layout.U
    net(plain_data()[0])
    assert not reader.unread_units(space) and 'fc' in reader.read
    reader.reset()
    assert reader.unread_units(space) == [unit.name for unit in space.units]


def test_a_copy_reads_the_same_masks():
    net, _, masks, _ = masked_net()
    images, _ = plain_data()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        masks.fill_(.5)
    assert torch.equal(twin(images), net(images))


@pytest.mark.parametrize('reentrant', [True, False])
def test_checkpointing_gives_the_same_gradient(reentrant):
    net, _, masks, _ = masked_net()
    images, _ = plain_data()
    expected = torch.autograd.grad(net(images).square().sum(), masks)[0]
    images.requires_grad_()
    checkpoint(net, images, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close(masks.grad, expected)


def test_sync_bn_conversion_and_attach_again():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    space = trace(net, torch.rand(2, 3, 8, 8))
    masks = torch.zeros(space.layout.E)
    attach(net, space, lambda: masks)
    assert isinstance(net[1], MaskedLayer), 'the norm carries the mask'
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    reader = attach(net, space, lambda: masks)
    net.eval()
    bias = net[3].bias.view(1, -1, 1, 1)
    out = net(torch.rand(2, 3, 8, 8))
    assert torch.equal(out,
                       bias.expand_as(out)) and not reader.unread_units(space)


@pytest.mark.parametrize('norm_first', [False, True])
def test_torch_encoder_layers_read_their_masks(norm_first):
    """In eval mode they would run as one operation, past all masks."""
    layer = nn.TransformerEncoderLayer(
        16, 4, 32, batch_first=True, norm_first=norm_first)
    net = nn.Sequential(
        nn.Linear(6, 16),
        nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
        nn.Linear(16, 3))
    words = torch.randn(2, 5, 6)
    space = assert_true(net, words)
    found = [unit.name for unit in space.units if unit.kind == 'width']
    assert found == ['0', *[f'1.layers.{i}.linear1' for i in range(3)]]


def test_blocks_that_end_in_torch_attention():
    """Which returns a tuple; its first tensor is scaled."""

    class Block(nn.Module):

        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            y = self.norm(x)
            return x + self.attention(y, y, y, need_weights=False)[0]

    net = nn.Sequential(
        nn.Linear(6, 16), *[Block() for _ in range(3)], nn.Linear(16, 3))
    space = assert_true(net, torch.randn(2, 5, 6))
    assert [unit.size for unit in space.units if unit.kind == 'depth'] == [3]
