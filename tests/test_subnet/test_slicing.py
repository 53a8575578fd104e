# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import pickle

import pytest
import torch
from torch import nn

from dms_razor.adapters.registry import RemovedBlock
from dms_razor.masking import MaskedLayer, attach
from dms_razor.space import SliceSite, StandIn
from dms_razor.subnet import SubnetError, slice_model
from dms_razor.subnet.slicing import inside, replace_by_identity
from dms_razor.trace import trace
from .helpers import images, net, some_keep, space


def difference(a, b):
    return float(((a - b).abs().max() / a.abs().max()).detach())


@pytest.mark.parametrize('removed', [(), (0, ), (1, ), (0, 1)])
def test_computes_what_masked_activations_compute(removed):
    model, keep = net(), some_keep(removed)
    for module in model.modules():
        module.training = False
    expected = model(images(), keep)
    subnet = slice_model(model, space(), keep)
    assert difference(expected, subnet(images())) < 1e-6
    assert difference(expected, model(images())) > 1e-2


def test_keeping_everything_changes_nothing():
    model = net()
    whole = slice_model(model, space(), torch.ones(len(some_keep())).bool())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])


def test_shapes_and_attributes():
    subnet = slice_model(net(), space(), some_keep())
    assert subnet.stem.weight.shape == (3, 3, 3, 3)
    assert repr(subnet.depthwise) == (
        'Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), '
        'groups=3)')
    assert subnet.depthwise.weight.shape == (3, 1, 3, 3)
    assert (subnet.grouped.in_channels, subnet.grouped.out_channels,
            subnet.grouped.groups) == (6, 4, 2)
    assert subnet.grouped.weight.shape == (4, 3, 3, 3)
    assert subnet.scale.shape == (4, 1, 1)
    assert subnet.shift.shape == (8, 1, 1)
    assert subnet.norm.normalized_shape == (8, )
    assert subnet.fc.in_features == subnet.fc.weight.shape[1] == 32
    assert subnet.stage[0].bn.num_features == 2
    assert torch.equal(subnet.counter, torch.arange(3))


def test_removed_block_is_an_identity():
    subnet = slice_model(net(), space(), some_keep(removed=(1, )))
    assert isinstance(subnet.stage[1], nn.Identity)
    assert not list(subnet.stage[1].parameters())
    assert not isinstance(subnet.stage[0], nn.Identity)


def test_flags_sharing_and_the_supernet_stay():
    model = net()
    before = copy.deepcopy(model.state_dict())
    model(images()).sum().backward()
    subnet = slice_model(model, space(), some_keep())
    assert subnet.twin.weight is subnet.fc.weight
    assert not subnet.stem.weight.requires_grad
    assert subnet.stem.bias.requires_grad
    assert subnet.training and not subnet.bn.training
    assert all(p.grad is None for p in subnet.parameters())
    assert model.fc.weight.grad is not None
    after = model.state_dict()
    assert after['fc.weight'].shape == before['fc.weight'].shape
    assert torch.equal(after['fc.weight'], before['fc.weight'])
    # no memory in common: training the one does not change the other
    with torch.no_grad():
        subnet.last.bias.fill_(7)
    assert not (model.last.bias == 7).any()
    optimizer = torch.optim.SGD(
        [p for p in subnet.parameters() if p.requires_grad], .1)
    subnet(images()).sum().backward()
    optimizer.step()


def test_masks_and_their_source_are_gone():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(),
        nn.LazyLinear(2)).eval()
    model(images())
    traced = trace(model, images(1))
    masks = torch.ones(traced.layout.E)
    attach(model, traced, lambda: masks)
    assert any(isinstance(m, MaskedLayer) for m in model.modules())
    keep = traced.random_selection(torch.Generator().manual_seed(0))
    subnet = slice_model(model, traced, keep)
    assert not any(isinstance(m, MaskedLayer) for m in subnet.modules())
    assert not any('_dms' in name for m in subnet.modules()
                   for name in vars(m))
    assert any(isinstance(m, MaskedLayer) for m in model.modules())
    masks.copy_(keep)
    assert difference(model(images()), subnet(images())) < 1e-6


def test_a_space_of_another_network():
    model = net()
    model.last = nn.Conv2d(8, 12, 1)
    with pytest.raises(
            SubnetError,
            match="'last.weight' has 16 entries in 1 "
            'groups, but the tensor has shape .12, 8, 1, 1'):
        slice_model(model, space(), some_keep())
    del model.last
    with pytest.raises(SubnetError, match="has no tensor 'last.weight'"):
        slice_model(model, space(), some_keep())
    odd = space()
    odd.attributes['stem']['bias'] = odd.attributes['stem']['out_channels']
    with pytest.raises(
            SubnetError, match="'stem' .Conv2d. has no width "
            "'bias'"):
        slice_model(net(), odd, some_keep())


def test_a_shared_tensor_cut_in_two_ways():
    odd = space()
    first = odd.slice_sites['fc.weight'][0]
    odd.slice_sites['twin.weight'] = [
        SliceSite('twin.weight', 1, first.index.flip(0))
    ]
    with pytest.raises(
            SubnetError,
            match="'fc.weight' and 'twin.weight' are "
            'one shared tensor'):
        slice_model(net(), odd, some_keep())
    odd.slice_sites['twin.weight'] = [SliceSite('twin.weight', 1, first.index)]
    assert slice_model(net(), odd, some_keep()).twin.weight.shape == (5, 32)


def test_a_shared_tensor_folded_in_two_ways():
    odd = space()
    first = odd.slice_sites['fc.weight'][0]
    fold = torch.full((64, ), -1)
    for other, same in ((fold, False), (None, True)):
        odd.slice_sites['twin.weight'] = [
            SliceSite('twin.weight', 1, first.index, fold=other)
        ]
        if same:
            slice_model(net(), odd, some_keep())
        else:
            with pytest.raises(SubnetError, match='one shared tensor'):
                slice_model(net(), odd, some_keep())


def test_a_block_inside_a_removed_block_goes_with_it():
    for blocks in (['0', '0.0'], ['0.0', '0']):
        model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))
        replace_by_identity(model.eval(), blocks)
        assert type(model[0]) is nn.Identity and not model[0].training


class OfTwo(nn.Linear):

    def forward(self, x, mask=None):
        return super().forward(x)


def test_what_stands_in_is_of_pytorch_where_it_can_be():
    """A file of such a network is read where this package is not."""
    model = nn.Sequential(nn.Linear(1, 1), OfTwo(1, 1), nn.ReLU())
    replace_by_identity(model, ['0', '2'])
    assert type(model[0]) is type(model[2]) is nn.Identity
    assert b'dms_razor' not in pickle.dumps(model)
    replace_by_identity(model, ['1'])
    assert type(model[1]) is RemovedBlock  # it is given a mask, too
    with_zeros = nn.Sequential(nn.Linear(1, 1))
    replace_by_identity(with_zeros, ['0'], [StandIn('0', zero=True)])
    assert not with_zeros(torch.ones(1)).any()


def test_inside():
    assert inside('a.b', ['a.b']) and inside('a.b.c', ['x', 'a.b'])
    assert not inside('a.bc', ['a.b']) and not inside('a', ['a.b'])


def test_on_another_device():
    model = net().to('meta')
    model.twin.weight = model.fc.weight  # .to('meta') parts them
    subnet = slice_model(model, space(), some_keep())
    expected = slice_model(net(), space(), some_keep()).state_dict()
    for name, tensor in subnet.state_dict().items():
        assert tensor.shape == expected[name].shape
        assert tensor.device.type == 'meta'
