# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches of networks with LoRA, put in before and after."""
import copy

import pytest
import torch
from language_nets import WORDS, decoder
from low_rank_nets import Adapted, adapt, merge
from torch import nn

from dms_razor import Search
from dms_razor.adapters.low_rank import is_adapted, rank_layers
from dms_razor.errors import SubnetError
from tools._kept import kept_bytes

NAMES = ('q_proj', 'o_proj', 'gate', 'down')


def searched(net, search, steps=6):
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], .05)
    search.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        search.loss(net(WORDS).square().mean()).backward()
        optimizer.step()


def search_of(net):
    return Search(
        net, WORDS[:1], '70%', metric='params', total_steps=6, depth=False)


def test_what_is_adapted():
    net = nn.ModuleDict(dict(a=Adapted(nn.Linear(3, 4), 2), b=nn.Linear(3, 4)))
    assert is_adapted(net['a']) and not is_adapted(net['b'])
    assert rank_layers(dict(net.named_modules())) == {'a.lora_A.default'}
    own = Adapted(nn.Linear(3, 4), 2)
    assert rank_layers(dict(own.named_modules())) == {'lora_A.default'}


def test_before_the_search_ranks_are_no_units(tmp_path):
    net = adapt(decoder(heads=4, key_heads=2), NAMES)
    search = search_of(net)
    free = {
        u.name
        for u in search_of(decoder(heads=4, key_heads=2)).space.units
    }
    assert {u.name.replace('.base_layer', '')
            for u in search.space.units} == free
    stays = {stay.module for stay in search.space.full_width}
    assert 'layers.0.gate.lora_A.default' in stays
    searched(net, search)
    export = search.export(tmp_path / 'subnet', picture=False)
    with search.masks('subnet'):
        expected = net.eval()(WORDS)
    subnet = export.model.eval()
    assert (subnet(WORDS) - expected).abs().max() < 1e-9
    assert (merge(subnet)(WORDS) - expected).abs().max() < 1e-9
    assert {type(m).__name__
            for m in subnet.modules()
            } == {type(m).__name__
                  for m in decoder().modules()}


def test_after_the_search_inputs_are_masked(tmp_path):
    """What an adapter adds goes through the same masks as the layer."""
    net = decoder(heads=4, key_heads=2)
    search = search_of(net)
    adapt(net, NAMES)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, Adapted):
                layer.lora_B['default'].weight.normal_(
                    generator=torch.Generator().manual_seed(0))
    searched(net, search)
    assert search.bank.updates == 6 and search.unread_units() == []
    with pytest.raises(SubnetError, match='merge_and_unload'):
        search.export(tmp_path / 'subnet', picture=False)
    with search.masks('subnet'):
        expected = net.eval()(WORDS)
    merge(net)
    export = search.export(tmp_path / 'subnet', picture=False)
    assert (export.model.eval()(WORDS) - expected).abs().max() < 1e-9


def test_both_ways_mask_alike():
    """The same outputs, and the same gradient of every mask."""
    first = adapt(decoder(heads=4, key_heads=2), NAMES)
    second = decoder(heads=4, key_heads=2)
    searches = [search_of(first), search_of(second)]
    adapt(second, NAMES).load_state_dict(copy.deepcopy(first.state_dict()))
    searches[1].attach_masks()
    found = []
    for net, search in zip((first, second), searches):
        search.bank.ratios = torch.full_like(search.bank.ratios, .4)
        search.bank.refresh()
        out = net(WORDS)
        found.append(
            torch.autograd.grad(out.square().sum(), search.bank.masks)[0])
        found.append(out.detach())
    assert found[0].abs().max() > .1
    assert torch.allclose(found[0], found[2], rtol=1e-9, atol=1e-12)
    assert torch.allclose(found[1], found[3], rtol=1e-9)


def test_other_adapters_are_refused():
    """Of DoRA the layer's own weight is normed: masks do not commute."""
    net = decoder()
    search = search_of(net)
    adapt(net, ('down', ))
    net.layers[1].down.lora_magnitude_vector = nn.ModuleDict(
        dict(default=nn.Identity()))
    with pytest.raises(RuntimeError, match='"layers.1.down" has got an adap'):
        search.attach_masks()


@pytest.mark.parametrize('before', [True, False])
def test_blocks_and_bytes(before):
    """Depth scales what comes out; little more is kept than without a search.
    """
    words = torch.randint(0, 31, (4, 16))
    net = decoder(layers=3)
    with torch.no_grad():
        for layer in net.layers:
            layer.down.bias = nn.Parameter(torch.rand(12).double())
    plain = adapt(copy.deepcopy(net), NAMES)
    expected = kept_bytes(plain, lambda: plain(words).sum())
    units = dict(words=dict(fixed=True))
    net = adapt(net, NAMES) if before else net
    search = Search(
        net,
        WORDS[:1],
        '70%',
        metric='params',
        total_steps=6,
        depth=False,
        units=units)
    net = net if before else adapt(net, NAMES)
    search.attach_masks()
    assert kept_bytes(net, lambda: net(words).sum()) <= 1.05 * expected


def test_a_block_goes_with_its_adapters():
    net = decoder(layers=3)
    search = Search(net, WORDS[:1], '70%', metric='params', total_steps=6)
    adapt(net, NAMES)
    search.attach_masks()
    keep = torch.ones(search.space.layout.E).bool()
    keep[search.space.blocks[1].element] = False
    search.bank.give(keep)
    with search.masks('given'):
        found = net.eval()(WORDS)
    net.layers = nn.ModuleList([net.layers[0], net.layers[2]])
    search.bank.mode = 'off'
    assert torch.allclose(net(WORDS), found)
