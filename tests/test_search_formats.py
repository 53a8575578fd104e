# Copyright (c) dms_razor contributors. All rights reserved.
"""What a network is trained as: memory formats, averages, compiled code."""
import copy

import pytest
import torch
from torch import _dynamo, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.subnet import SubnetError, build_subnet

DATA = plain_data()


def searched(net, steps=12, ema=None):
    search = make_search(net, total_steps=steps)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    for _ in range(steps):
        train(search, optimizer, DATA, 1)
        if ema is not None:
            ema.update_parameters(net)
    return search


def test_channels_last_is_kept_by_the_export(tmp_path):
    """As ``.to(memory_format=...)`` would make the plain subnet."""
    net = plain_net().to(memory_format=torch.channels_last)
    search = searched(net)
    subnet = search.export(tmp_path / 'subnet', picture=False).model
    plain = copy.deepcopy(subnet).to(memory_format=torch.contiguous_format)
    expected = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    strides = [p.stride() for p in expected.parameters()]
    assert [p.stride() for p in subnet.parameters()] == strides
    assert strides != [p.stride() for p in plain.parameters()]
    images = DATA[0].contiguous(memory_format=torch.channels_last)
    assert subnet.blocks[0](F.relu(
        subnet.stem(images))).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(subnet(images), plain(DATA[0]))
    again = build_subnet(plain_net().to(memory_format=torch.channels_last),
                         tmp_path / 'subnet', tmp_path / 'subnet/subnet.pth')
    assert [p.stride() for p in again.parameters()] == strides
    assert torch.equal(again(images), subnet(images))


def averaged(net):
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(.8))


@pytest.mark.parametrize('given', [
    lambda ema: ema, lambda ema: ema.module, lambda ema: ema.state_dict(),
    lambda ema: ema.module.state_dict()
])
def test_an_average_is_exported_by_one_option(given, tmp_path):
    """Against the subnet cut out of the average itself."""
    net = plain_net()
    ema = averaged(net)
    search = searched(net, ema=ema)
    export = search.export(
        tmp_path / 'average', weights=given(ema), picture=False)
    own = search.export(tmp_path / 'own', picture=False)
    with torch.no_grad():
        for parameter, mean in zip(net.parameters(), ema.module.parameters()):
            parameter.copy_(mean)
    expected = search.export(tmp_path / 'expected', picture=False)
    for a, b, c in zip(export.model.parameters(), expected.model.parameters(),
                       own.model.parameters()):
        assert torch.equal(a, b) and not torch.equal(a, c)
    one, other = (each.path / 'subnet.json' for each in (export, expected))
    assert one.read_bytes() == other.read_bytes()
    assert 'those that were given' in (export.path / 'report.md').read_text()


def test_weights_of_another_network_are_refused(tmp_path):
    search = searched(plain_net())
    for wrong in (nn.Linear(2, 3), nn.Linear(2, 3).state_dict(),
                  averaged(nn.Linear(2, 3))):
        with pytest.raises(
                SubnetError, match='weights= are not those.*Give the average'):
            search.export(tmp_path / 'subnet', weights=wrong, picture=False)
    broken = plain_net()
    with torch.no_grad():
        broken.stem.weight[0] = float('nan')
    with pytest.raises(SubnetError, match='stem.weight hold numbers'):
        search.export(tmp_path / 'subnet', weights=broken, picture=False)
    assert not (tmp_path / 'subnet').exists()


class Mixed(nn.Module):
    """Masks on weights, in norms of both kinds, and on what blocks add."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 8, 1))
        self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(2)])
        self.blocks = nn.ModuleList([
            nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
            for _ in range(2)
        ])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        for norm, block in zip(self.norms, self.blocks):
            x = x + block(norm(x))
        return self.head(x)


def test_a_compiled_supernet_is_searched_without_a_graph_break():
    """As uncompiled, however often the masks change: two graphs at most."""
    _dynamo.reset(), counters.clear()
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = Mixed()
        search = make_search(net, total_steps=6)
        optimizer = torch.optim.SGD(net.parameters(), lr=.05)
        search.attach(optimizer)
        model = torch.compile(net, backend='aot_eager') if compiled else net
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(DATA[0]), DATA[1])
            search.loss(loss).backward()
            optimizer.step()
        assert not search.unread_units()
        found.append([
            search.bank.ratios, search.bank.importance,
            *(p.detach() for p in net.parameters())
        ])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert found[0][0].max() > .05
    assert not counters['graph_break']
    assert 1 <= counters['stats']['unique_graphs'] <= 2
