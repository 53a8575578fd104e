# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked weights made at the beginning of a pass, against layer by layer."""
import copy
import io

import pytest
import torch
from language_nets import WORDS, decoder
from torch import nn
from torch.utils.checkpoint import checkpoint
from toy_nets import plain_net

from dms_razor import Search
from dms_razor.masking import layers, together
from tools.compare.networks import ResNet, VisionTransformer

IMAGES = torch.randn(4, 3, 16, 16, dtype=torch.float64)


@pytest.fixture
def usable(monkeypatch):
    """As on a GPU, with operations of PyTorch for its kernels."""
    monkeypatch.setattr(together, 'usable', lambda flat: True)


class Grouped(nn.Module):
    """Grouped and depthwise convolutions, and a norm of groups."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, bias=False)
        self.grouped = nn.Conv2d(12, 16, 3, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.norm = nn.GroupNorm(4, 16)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = torch.tanh(self.grouped(torch.tanh(self.stem(x))))
        return self.last(self.norm(self.depthwise(x))).mean((2, 3))


class Checkpointed(nn.Module):
    """A network whose middle runs again in backward."""

    def __init__(self, reentrant):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
        self.last = nn.Conv2d(8, 4, 1)
        self.reentrant = reentrant

    def forward(self, x):
        x = checkpoint(
            self.middle, self.first(x), use_reentrant=self.reentrant)
        return self.last(x).mean((2, 3))


NETS = {
    'resnet': (lambda: ResNet((8, 16), (2, 2), classes=4), IMAGES),
    'toy': (plain_net, IMAGES[..., :8, :8]),
    'grouped': (Grouped, IMAGES),
    'vit': (lambda: VisionTransformer(24, 2, 4, 16, 4, classes=4), IMAGES),
    'llama': (decoder, WORDS),
    'checkpoint': (lambda: Checkpointed(False), IMAGES),
    'reentrant': (lambda: Checkpointed(True), IMAGES),
}


def searched(name, last=False):
    """A network in the middle of a search, and what it takes."""
    torch.manual_seed(0)
    make, data = NETS[name]
    net = make().double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=.1)
    if last:
        net.to(memory_format=torch.channels_last)
    search = Search(net.eval(), data[:1], '60%', total_steps=9)
    search.bank.importance = torch.rand_like(search.bank.importance)
    search.bank.ratios += .3
    search.bank.refresh()
    return search, data


def result_of(model, data):
    out = model(data)
    out = getattr(out, 'logits', out)
    return out[-1] if isinstance(out, (tuple, list)) else out


def gradients(search, data, passes=1):
    """Of masks and weights; a loss that does not know rows from another."""
    search.model.zero_grad()
    search.bank.drop_gradient()
    losses = [
        result_of(search.model, data).square().sum() for _ in range(passes)
    ]
    sum(losses).backward()
    found = dict(search.model.named_parameters(), masks=search.bank.masks)
    return {name: p.grad for name, p in found.items() if p.grad is not None}


def same(one, other, bound=1e-10):
    assert one.keys() == other.keys()
    for name in one:
        scale = other[name].abs().max().clamp(min=1e-6)
        assert (one[name] - other[name]).abs().max() < bound * scale, name


@pytest.mark.parametrize('last', (False, True))
@pytest.mark.parametrize('name', NETS)
def test_gradients_are_those_of_layer_by_layer(name, last, monkeypatch):
    if last and name in ('vit', 'llama', 'toy'):
        pytest.skip('no images in another layout')
    search, data = searched(name, last)
    expected = gradients(search, data)
    monkeypatch.setattr(together, 'usable', lambda flat: True)
    alone = []
    show = layers.LayerMasks.show
    monkeypatch.setattr(
        layers.LayerMasks, 'show',
        lambda self, *args: alone.append(self) or show(self, *args))
    for _ in range(2):
        same(gradients(search, data), expected)
    # Of what is checkpointed in the old way, backward makes its own.
    assert len(alone) == (4 if name == 'reentrant' else 0)
    same(
        gradients(search, data, passes=2), {
            name: 2 * grad
            for name, grad in expected.items()
        })


def test_it_is_not_taken_for_another_moment(usable):
    """Other masks, other modes, other weights, layers on their own."""
    search, data = searched('resnet')
    model = search.model
    layer = next(
        m for m in model.modules()
        if isinstance(m, layers.MaskedLayer) and isinstance(m, nn.Conv2d))
    x = torch.randn(1, layer.in_channels, 5, 5).double()
    first = model(data)
    alone = layer(x)
    with search.masks('off'):
        whole = layer(x)
        assert not torch.allclose(alone, whole)
        assert not torch.allclose(model(data), first)
    search.bank.ratios += .2
    search.bank.refresh()
    assert not torch.allclose(layer(x), alone)
    assert not torch.allclose(model(data), first)
    second = model(data)
    with torch.no_grad():
        assert torch.allclose(model(data), second)
    layer.weight = nn.Parameter(2 * layer.weight.detach())
    changed = model(data)
    assert not torch.allclose(changed, second)
    changed.sum().backward()
    assert layer.weight.grad is not None


def test_copies_and_files_are_none_of_it(usable):
    search, data = searched('resnet')
    out = search.model(data)
    twin = copy.deepcopy(search.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert not torch.allclose(twin(data), out)
    twin(data).sum().backward()
    assert all(p.grad is None for p in search.model.parameters())
    file = io.BytesIO()
    with pytest.warns(UserWarning, match='the whole supernet'):
        torch.save(search.model, file)
    assert b'together' not in file.getvalue()
    file.seek(0)
    again = torch.load(file, weights_only=False)
    again(data).sum().backward()
    model = search.close()
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_a_failed_pass_leaves_nothing(usable):
    search, data = searched('resnet')
    expected = gradients(search, data)
    with pytest.raises(RuntimeError):
        search.model(data[:, :2])
    same(gradients(search, data), expected)


def test_a_penalty_of_gradients(usable, monkeypatch):
    """Gradients that are differentiated themselves."""
    found = []
    for usual in (True, False):
        monkeypatch.setattr(together, 'usable', lambda flat: usual)
        search, data = searched('grouped')
        images = data.clone().requires_grad_()
        grad, = torch.autograd.grad(
            search.model(images).sum(), images, create_graph=True)
        grad.square().sum().backward()
        found.append(
            dict({
                n: p.grad
                for n, p in search.model.named_parameters()
            },
                 masks=search.bank.masks.grad))
    one, other = ({n: g for n, g in x.items() if g is not None} for x in found)
    same(one, other)


def test_many_weights_are_masked_one_by_one(usable, monkeypatch):
    search, data = searched('resnet')
    expected = gradients(search, data)
    monkeypatch.setattr(together, 'MOST', 10)
    for parameter in search.model.parameters():
        parameter.data = parameter.data.clone()
    same(gradients(search, data), expected)
    assert all(layer._dms_masks.ready is None
               for layer in search.model.modules()
               if isinstance(layer, layers.MaskedLayer))


def test_several_pieces(usable, monkeypatch):
    search, data = searched('resnet')
    expected = gradients(search, data)
    monkeypatch.setattr(together, 'PIECE', 2000)
    for parameter in search.model.parameters():
        parameter.data = parameter.data.clone()
    same(gradients(search, data), expected)
