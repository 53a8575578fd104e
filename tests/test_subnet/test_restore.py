# Copyright (c) dms_razor contributors. All rights reserved.
"""Building in other precisions and places; a failed build changes nothing."""
import pytest
import torch
from torch import nn

from dms_razor.counting import count_macs
from dms_razor.subnet import (Manifest, SubnetError, apply_manifest,
                              build_subnet, export_subnet)
from dms_razor.subnet.restore import unchanged_on_failure
from dms_razor.trace import trace
from .helpers import Net, net, some_keep, space


class Small(nn.Module):
    """Shared weights, a norm, a recurrent layer; nothing that needs numbers.

    ``steps`` is a buffer that no checkpoint holds, if asked for.
    """

    def __init__(self, steps=False):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 12, 3)
        self.rnn = nn.GRU(12, 8, batch_first=True)
        self.fc, self.twin = nn.Linear(8, 8), nn.Linear(8, 8)
        self.twin.weight = self.fc.weight
        if steps:
            self.register_buffer('steps', torch.ones(1), persistent=False)

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu()).relu()
        x = self.rnn(x.flatten(2).transpose(1, 2))[0]
        return self.twin(self.fc(x).relu())


IMAGE = torch.randn(1, 3, 8, 8)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    model = Small()
    found = trace(model, IMAGE)
    selection = found.random_selection(torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp('small') / 'subnet'
    return export_subnet(path, model, found, selection, picture=False)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('weights', [True, False])
def test_half_precision(exported, dtype, weights):
    file = exported.path / 'subnet.pth' if weights else None
    built = build_subnet(Small().to(dtype), exported.path, file)
    assert {p.dtype for p in built.parameters()} == {dtype}
    built.float()
    assert count_macs(built, IMAGE).macs == exported.manifest.macs['counted']
    if weights:
        torch.testing.assert_close(
            built.first.weight,
            exported.model.first.weight,
            atol=1e-2,
            rtol=1e-2)


def test_half_precision_that_costs_something_else(exported):
    model = Small().half()
    model.first.stride = (2, 2)
    with pytest.raises(SubnetError, match='MACs, its manifest says'):
        build_subnet(model, exported.path)
    assert model.first.weight.shape[0] == 16


def test_the_meta_device(exported):
    with torch.device('meta'):
        model, loaded = Small(), Small()
    assert build_subnet(model, exported.path) is model
    assert all(p.is_meta for p in model.parameters())
    assert model.first.weight.shape == exported.model.first.weight.shape

    loaded.first.weight.requires_grad_(False)
    build_subnet(loaded, exported.path, exported.path / 'subnet.pth')
    assert not loaded.first.weight.requires_grad
    assert loaded.twin.weight is loaded.fc.weight
    with torch.no_grad():
        for module in (loaded, exported.model):
            module.eval()
        assert torch.equal(loaded(IMAGE), exported.model(IMAGE))


def test_what_no_checkpoint_holds_cannot_leave_the_meta_device(exported):
    with torch.device('meta'):
        model = Small(steps=True)
    with pytest.raises(SubnetError, match='steps of Small lie on the meta'):
        build_subnet(model, exported.path, exported.path / 'subnet.pth')
    assert all(t.is_meta for t in model.state_dict().values())


def test_a_wrapped_network(exported):
    with pytest.raises(ValueError, match='itself, model.module, and wrap'):
        build_subnet(nn.DataParallel(Small()), exported.path)


def everything(model):
    """All that can be seen of a network."""
    return (repr(model), {
        name: (id(t), t.clone())
        for name, t in model.state_dict(keep_vars=True).items()
    }, {
        path: (id(module), type(module), sorted(vars(module)))
        for path, module in model.named_modules()
    })


def assert_same(model, before):
    text, tensors, modules = everything(model)
    assert text == before[0] and modules == before[2]
    assert tensors.keys() == before[1].keys()
    for name, (identity, tensor) in tensors.items():
        assert identity == before[1][name][0]
        assert torch.equal(tensor, before[1][name][1]), name


def of_others(path):
    """The weights of another subnet."""
    state = torch.load(path / 'subnet.pth')
    return {**state, 'stem.weight': torch.zeros(1, 3, 3, 3)}


def strided(model):
    model.stem.stride = (2, 2)


def fail(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    model.more = nn.Linear(1, 1)
    raise KeyError('own initialisation')


@pytest.mark.parametrize('way', ['weights', 'macs', 'init', 'manifest'])
def test_a_failed_build_leaves_the_network_as_it_was(way, tmp_path):
    export = export_subnet(
        tmp_path / 'subnet', net(), space(), some_keep(), picture=False)
    model, error = Net(), SubnetError
    if way == 'macs':
        strided(model)
    manifest = Manifest.load(export.path)
    if way == 'manifest':
        manifest.modules['fc']['tensors']['bias'] = [1, 5]
        manifest.modules['stem']['tensors']['weight'] = [3, 3, 3]
    settings = {}
    if way == 'weights':
        settings['weights'] = of_others(export.path)
    if way == 'init':
        settings['init'], error = fail, KeyError
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before = everything(model)
    with pytest.raises(error):
        build_subnet(model, manifest, **settings)
    assert_same(model, before)
    if way in ('init', 'manifest'):
        with pytest.raises(error):
            apply_manifest(model, manifest, **settings)
        assert_same(model, before)
    if way != 'macs':  # it can be built all the same
        build_subnet(model, export.path, export.path / 'subnet.pth')


def test_lists_and_hooks_are_the_same_again():
    model = nn.Sequential(nn.Linear(2, 2))
    model.widths = widths = [1, 2]
    handle = model.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError):
        with unchanged_on_failure(model):
            widths.append(3)
            model[0] = nn.ReLU()
            model.register_forward_hook(lambda *_: None)
            raise ValueError
    assert model.widths is widths == [1, 2]
    assert isinstance(model[0], nn.Linear)
    handle.remove()
    assert not model._forward_hooks
