# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers of packed weights: recognised, read, masked, cut."""
import copy

import pytest
import torch
from language_nets import WORDS, decoder
from low_rank_nets import Adapted, adapt, merge
from packed_nets import Packed, Packing, pack, written_out
from torch import nn
from transformer_nets import tiny_vit

from dms_razor import Search
from dms_razor.adapters.quantised import (dequantise, hold_packing,
                                          is_quantised, is_quantised_linear,
                                          packed_weights, release_packing,
                                          weight_of_units)
from dms_razor.masking import unmask
from dms_razor.subnet.slicing import slice_model
from tools._kept import kept_bytes

NAMES = ('q_proj', 'o_proj', 'gate', 'down')


def small(inputs=6, outputs=4, kind=Packed, **settings):
    torch.manual_seed(0)
    return kind(nn.Linear(inputs, outputs, **settings).double())


def packed_decoder(kind=Packed, **settings):
    return pack(decoder(heads=4, key_heads=2, **settings), kind)


def search_of(net, **settings):
    return Search(
        net, WORDS[:1], '70%', metric='params', total_steps=6, **settings)


def gradient(net, search, ratio=.35):
    """Outputs, and the gradient of every mask."""
    search.bank.ratios = torch.full_like(search.bank.ratios, ratio)
    search.bank.refresh()
    out = net(WORDS)
    grad, = torch.autograd.grad(out.square().sum(), search.bank.masks)
    return out.detach(), grad


class InFloats(nn.Linear):
    """Packed numbers in memory of a floating-point type."""

    def forward(self, x):
        return x


class Own(nn.Parameter):
    """A parameter of a class of its own."""


def test_what_is_quantised():
    layer = small()
    assert is_quantised(layer) and is_quantised_linear(layer)
    net = nn.Sequential(nn.Linear(6, 6), layer, layer)
    assert packed_weights(net) == {id(layer.weight)}
    table = nn.Embedding(3, 2)
    table.weight = nn.Parameter(torch.zeros(3, 1).byte(), requires_grad=False)
    assert is_quantised(table) and not is_quantised_linear(table)
    layer = InFloats(6, 4)
    assert not is_quantised(layer)
    layer.weight = Own(torch.zeros(3, 2), requires_grad=False)
    assert is_quantised(layer) and is_quantised_linear(layer)


def test_a_weight_is_read_off_unit_vectors():
    """More of them than are run at once; the bias is none of it."""
    layer = small(600, 5).eval()
    weight = weight_of_units(layer, torch.float64)
    assert torch.equal(weight, layer.numbers())
    assert layer.bias is not None and not layer.training


def test_what_is_no_product_is_refused():
    layer = small()
    layer.forward = lambda x: Packed.forward(layer, x).relu()
    net = nn.Sequential(nn.Linear(6, 6).double(), layer)
    with pytest.raises(ValueError, match='"1" .Packed.*float64.*floating p'):
        dequantise(net)
    layer.forward = lambda x: x @ x
    with pytest.raises(ValueError, match='"1" .Packed.*cannot be read'):
        dequantise(net)
    assert net[1] is layer


def test_dequantised_layers_are_ordinary():
    layer, seen = small().eval(), []
    layer.register_forward_hook(lambda *args: seen.append(1))
    layer.bias.requires_grad_(True)
    net = nn.ModuleDict(dict(a=layer, b=layer, c=nn.Linear(2, 2).double()))
    net.config = type('Config', (), {})()
    net.config.quantization_config = net.is_loaded_in_4bit = 4
    x = torch.rand(3, 6).double()
    expected = layer(x)
    assert dequantise(net) is net and net['a'] is net['b']
    found = net['a']
    assert type(found) is nn.Linear and not found.training
    assert (found.in_features, found.out_features) == (6, 4)
    assert found.bias.requires_grad and not found.weight.requires_grad
    assert torch.allclose(found(x), expected, atol=1e-14)
    assert len(seen) == 2
    assert not hasattr(net, 'is_loaded_in_4bit')
    assert not vars(net.config)
    alone = dequantise(small(bias=False))
    assert type(alone) is nn.Linear and alone.bias is None
    plain = decoder()
    assert dequantise(plain) is plain


def test_in_the_type_of_the_others():
    net = nn.Sequential(nn.Embedding(3, 6).bfloat16(), small())
    assert dequantise(net)[1].weight.dtype == torch.bfloat16


def test_a_layer_does_not_pack_itself_while_it_is_searched():
    layer, x = small(kind=Packing), torch.rand(2, 6).double()
    layer.eval()(x)
    assert layer.packed
    hold_packing(layer)
    layer(x)
    assert not layer.packed
    release_packing(layer)
    layer(x)
    assert layer.packed
    net = packed_decoder(Packing)
    net(WORDS)
    search = search_of(net)
    with torch.no_grad():
        net(WORDS)
    assert gradient(net, search)[1].abs().min() > 0
    search.close()
    net(WORDS)
    assert all(x.packed for x in net.modules() if isinstance(x, Packing))


def test_the_same_units_and_costs_as_in_floating_point():
    net = packed_decoder()
    found, expected = search_of(net), search_of(written_out(packed_decoder()))
    assert found.space.units == expected.space.units
    assert {u.kind for u in found.space.units} == {'heads', 'width', 'depth'}
    numbers = sum(p.numel() for p in expected.model.parameters())
    for metric, whole in (('params', numbers), ('macs', None)):
        amount = found.preflight().supernet[metric]
        assert amount == expected.preflight().supernet[metric]
        assert whole is None or amount == whole
    assert 'float64' in found.space.proof.text()
    assert all(isinstance(layer.gate, Packed) for layer in net.layers)


@pytest.mark.parametrize('bias', [False, True])
def test_the_same_gradients_as_in_floating_point(bias):
    found = []
    for other in (lambda net: net, written_out):
        net = decoder(heads=4, key_heads=2)
        for layer in net.layers if bias else ():
            layer.down.bias = nn.Parameter(torch.ones(12).double())
        net = other(pack(net))
        found += gradient(net, search_of(net))
    assert torch.allclose(found[0], found[2], atol=1e-12)
    assert found[1].abs().max() > 1e-3
    assert torch.allclose(found[1], found[3], rtol=1e-9, atol=1e-12)


def test_gradients_are_differences():
    net = packed_decoder()
    search = search_of(net)
    masks = torch.rand(search.space.layout.E).double() / 2 + .5
    masks.requires_grad_()
    search.reader.source = lambda: masks

    def loss():
        return net(WORDS).square().sum()

    grad, = torch.autograd.grad(loss(), masks)
    assert len(masks) > 40
    with torch.no_grad():
        for element in range(0, len(masks), 5):
            values = []
            for step in (1e-5, -1e-5):
                masks[element] += step
                values.append(loss())
                masks[element] -= step
            slope = float(values[0] - values[1]) / 2e-5
            assert abs(slope - grad[element]) < 1e-6 * grad.abs().max()


def test_rows_are_masked_behind_the_layer():
    """Dims of heads, rows of a matrix and its bias."""
    found = []
    for other in (lambda net: net, written_out):
        torch.manual_seed(0)
        net, image = tiny_vit()
        net = other(pack(net.double(), spared=()))
        search = Search(net, image.double(), '70%', total_steps=9)
        assert {'qk', 'v'} <= {u.kind for u in search.space.units}
        search.bank.ratios = torch.full_like(search.bank.ratios, .35)
        search.bank.refresh()
        out = net(image.double())
        out = out[0] if isinstance(out, tuple) else out
        found += [
            out.detach(),
            *torch.autograd.grad(out.square().sum(), search.bank.masks)
        ]
        assert search.unread_units() == []
    assert torch.allclose(found[0], found[2], atol=1e-12)
    assert found[1].abs().max() > 0
    assert torch.allclose(found[1], found[3], rtol=1e-9, atol=1e-12)


def step(net, search, steps=6):
    for _ in range(steps):
        search.loss(net(WORDS).square().mean()).backward()
        search.step()


def test_searched_and_cut(tmp_path):
    """The cut network computes what the masked one does, to float64."""
    net = packed_decoder(layers=3)
    search = search_of(net)
    step(net, search)
    assert search.bank.updates == 6 and search.bank.ratios.max() > .1
    export = search.export(tmp_path / 'subnet', picture=False)
    with search.masks('subnet'):
        expected = net.eval()(WORDS)
    assert not packed_weights(export.model)
    assert (export.model.eval()(WORDS) - expected).abs().max() < 1e-9
    notes = ' '.join(export.report.notes)
    assert 'quantised linear layers' in notes and 'dequantised' in notes
    assert isinstance(net.layers[0].gate, Packed)


def test_cut_from_the_weights_before_they_were_quantised(tmp_path):
    original = decoder(heads=4, key_heads=2, layers=3)
    search = search_of(pack(copy.deepcopy(original)))
    step(search.model, search)
    export = search.export(tmp_path / 'a', weights=original, picture=False)
    assert 'structure of that search' in ' '.join(export.report.notes)
    other = Search(
        original,
        space=search.space,
        bank=search.bank,
        target=search.target,
        metric='params')
    with other.masks('subnet'):
        expected = original(WORDS)
    assert (export.model.eval()(WORDS) - expected).abs().max() < 1e-9
    with search.masks('subnet'):
        assert (search.model(WORDS) - expected).abs().max() > 1e-3


def test_a_space_of_the_network_in_floating_point_is_one_of_it():
    """Traced on the meta device, say, where it takes no memory."""
    space = search_of(decoder(heads=4, key_heads=2)).space
    net, other = packed_decoder(), packed_decoder()
    search = Search(net, space=space, target='70%', metric='params')
    found, expected = gradient(net, search), gradient(other, search_of(other))
    assert torch.allclose(found[1], expected[1], rtol=1e-9, atol=1e-12)
    keep = search.keep()
    cut = slice_model(net, space, keep)
    search.bank.give(keep)
    with search.masks('given'):
        assert (cut(WORDS) - net(WORDS)).abs().max() < 1e-9


@pytest.mark.parametrize('before', [True, False])
def test_adapters(before, tmp_path):
    net = packed_decoder(layers=3)
    if before:
        net = adapt(net, NAMES)
    search = search_of(net)
    if not before:
        net = adapt(net, NAMES)
        search.attach_masks()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, Adapted):
                layer.lora_B['default'].weight.normal_(
                    generator=torch.Generator().manual_seed(0))
    step(net, search)
    with search.masks('subnet'):
        expected = net.eval()(WORDS)
    if before:
        found = merge(search.export(tmp_path / 'a', picture=False).model)
    else:
        merge(dequantise(unmask(net)))
        found = search.export(tmp_path / 'a', picture=False).model
    assert (found.eval()(WORDS) - expected).abs().max() < 1e-9


def test_bytes_beneath_adapters():
    """At most a twentieth more than without a search."""
    words = torch.randint(0, 31, (4, 16))
    plain = adapt(packed_decoder(), NAMES)
    expected = kept_bytes(plain, lambda: plain(words).sum())
    search = search_of(plain, units=dict(words=dict(fixed=True)), depth=False)
    found = kept_bytes(plain, lambda: plain(words).sum())
    assert search.unread_units() == [] and found <= 1.05 * expected
