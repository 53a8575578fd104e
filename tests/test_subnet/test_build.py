# Copyright (c) dms_razor contributors. All rights reserved.
from dataclasses import replace

import pytest
import torch
from torch import nn

from dms_razor.counting import count_each
from dms_razor.subnet import (SubnetError, apply_manifest, build_subnet,
                              export_subnet, slice_model)
from dms_razor.subnet.manifest import describe_subnet
from .helpers import Net, images, net, some_keep, space


@pytest.fixture
def exported(tmp_path):
    return export_subnet(
        tmp_path / 'subnet', net(), space(), some_keep(), picture=False)


def evaluated(model):
    for module in model.modules():
        module.training = False
    return model(images())


def test_searched_weights(exported):
    torch.manual_seed(9)
    other = Net()
    other.shift = net().shift.clone()  # not part of a state dict
    built = build_subnet(other, exported.path, exported.path / 'subnet.pth')
    assert built is other
    built.shift = exported.model.shift
    assert torch.equal(evaluated(built), evaluated(exported.model))
    assert repr(built) == repr(exported.model)


def test_from_scratch_is_initialised_for_its_width(exported):
    torch.manual_seed(3)
    model = Net()
    norm = model.bn.weight.detach().clone()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    built = build_subnet(model, exported.manifest)
    for name, tensor in exported.model.state_dict().items():
        assert built.state_dict()[name].shape == tensor.shape
    # nn.Linear draws from ±1/sqrt(inputs): 32 now, 64 before
    bound = float(built.fc.weight.detach().abs().max())
    assert .125 < bound <= 32**-.5
    assert not torch.equal(built.expand.weight,
                           before['expand.weight'][:6, :3])
    # constant by channel: the author's own values
    assert torch.equal(built.bn.weight, norm[:3])
    assert torch.equal(built.scale, before['scale'][:4])
    assert built.twin.weight is built.fc.weight
    assert torch.isfinite(evaluated(built)).all()


def test_own_initialisation(exported):

    def init(model):
        nn.init.constant_(model.fc.weight, .5)

    built = build_subnet(Net(), exported.path, init=init)
    assert built.fc.weight.shape == (5, 32)
    assert (built.fc.weight == .5).all()


def test_init_has_an_effect_or_is_refused(exported):
    with pytest.raises(ValueError, match='init would be overwritten'):
        build_subnet(
            Net(),
            exported.path,
            exported.path / 'subnet.pth',
            init=lambda model: None)
    model, seen = Net(), []
    apply_manifest(model, exported.manifest, init=seen.append, reset=False)
    assert seen == [model]


def test_flags_stay(exported):
    model = net()
    model.stage.eval()
    built = build_subnet(model, exported.path)
    assert not built.stem.weight.requires_grad
    assert built.fc.weight.requires_grad
    assert built.training and not built.bn.training
    assert not built.stage[0].training and not built.stage[1].training


def test_a_part(exported):
    whole = torch.load(exported.path / 'subnet.pth', weights_only=True)
    stage = build_subnet(
        Net().stage,
        exported.path,
        weights=exported.path / 'subnet.pth',
        part='stage')
    assert torch.equal(stage[0].conv1.weight, whole['stage.0.conv1.weight'])
    assert isinstance(stage[1], nn.Identity)
    with pytest.raises(SubnetError, match='Sequential is not the network'):
        build_subnet(Net().stage, exported.path)


def test_another_architecture(exported):
    model = Net()
    model.expand = nn.Conv2d(8, 14, 1)
    model.extra = nn.Linear(1, 1)
    with pytest.raises(
            SubnetError,
            match=r'Net is not the network .* cut from \(Net\): '
            r'expand.weight has shape \(14, 8, 1, 1\) instead of '
            r'\(12, 8, 1, 1\), expand.bias .*, extra.weight is not expected '
            'and 1 more. Build it from the config'):
        build_subnet(model, exported.path)
    assert model.expand.out_channels == 14 and model.stem.out_channels == 8


def test_same_shapes_but_another_stride(exported):
    model = Net()
    model.grouped.stride = (1, 1)
    with pytest.raises(
            SubnetError,
            match=r'takes [\d,]+ MACs, its manifest '
            r'says [\d,]+ \(grouped: 6,912 instead of 1,728'):
        build_subnet(model, exported.path)


def test_parameters_shared_differently(exported):
    model = Net()
    model.twin.weight = nn.Parameter(model.fc.weight.detach().clone())
    with pytest.raises(
            SubnetError,
            match=r'has 713 parameters, its manifest '
            r'says 553. Parameters are shared differently'):
        build_subnet(model, exported.path)


def test_an_inconsistent_manifest(exported):
    for name, shape in (('weight', [99, 3, 1, 1]), ('weight', [6])):
        manifest = replace(exported.manifest)
        module = dict(manifest.modules['expand'])
        module['tensors'] = {**module['tensors'], name: shape}
        manifest.modules = {**manifest.modules, 'expand': module}
        with pytest.raises(
                SubnetError,
                match='was shrunk by its manifest, '
                'but expand.weight has shape .* inconsistent'):
            build_subnet(Net(), manifest)


def test_attention_becomes_slim():
    from mmpretrain.models.utils import MultiheadAttention

    from dms_razor.trace import trace
    torch.manual_seed(0)
    attention = MultiheadAttention(24, 3)
    space = trace(attention, torch.rand(1, 5, 24))
    kinds = {unit.kind for unit in space.units}
    assert {'qk', 'v'} <= kinds
    keep = space.random_selection(torch.Generator().manual_seed(1))
    subnet = slice_model(attention, space, keep)
    x = torch.rand(1, 5, 24)
    manifest = describe_subnet(attention, subnet, space, keep, x,
                               count_each(subnet, x))
    built = build_subnet(
        MultiheadAttention(24, 3), manifest, weights=subnet.state_dict())
    assert torch.equal(built.eval()(x), subnet.eval()(x))
    assert subnet.qkv.weight.shape[0] < 72
