# Copyright (c) dms_razor contributors. All rights reserved.
"""Nothing that a network keeps is lost late: not after a whole search."""
import threading

import pytest
import torch
from small_nets import IMAGES, build, conv, widths
from torch import nn
from torch.nn import functional as F

from dms_razor import Search
from dms_razor.masking.copying import check_copy, copy_network
from dms_razor.network import run_model
from dms_razor.subnet import SubnetError
from dms_razor.trace import trace

OUT = dict(out=conv(12, 8))


class Keeping(nn.Module):
    """Keeps what its forward computes, in several places."""

    def __init__(self):
        super().__init__()
        self.conv = conv(16, 12)
        self.last, self.maps, self.losses = None, [], {}

    def forward(self, x):
        x = self.conv(x)
        self.last = x
        self.maps.append(x.tanh())
        self.losses['balance'] = self.same = x.square()
        return x.relu()


@torch.jit.script
def swish(x):
    """A scripted function."""
    return x * torch.sigmoid(x)


def trained(net, **settings):
    """A search of two steps, and the network that it exports."""
    search = Search(net, IMAGES[:1], '70%', total_steps=2, **settings)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    search.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(IMAGES), torch.tensor([1, 2]))
        search.loss(loss).backward()
        optimizer.step()
    return search


def assert_exported(net, tmp_path, units, **settings):
    """The subnet computes what the masked network computes."""
    search = trained(net, **settings)
    assert set(widths(search.space)) == units
    subnet = search.export(tmp_path / 'subnet', picture=False).model.eval()
    net.eval()
    with torch.no_grad(), search.masks('subnet'):
        expected = net(IMAGES)
    with torch.no_grad():
        found = subnet(IMAGES)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    sizes = [
        sum(weight.numel() for weight in network.parameters())
        for network in (subnet, net)
    ]
    assert sizes[0] < sizes[1], 'whichever widths a search of two steps takes'
    return subnet


def test_kept_tensors_are_detached_in_every_copy(tmp_path):
    net = build(
        lambda net, x: net.out(net.keeping(x)), keeping=Keeping(), **OUT)
    assert_exported(net, tmp_path, {'stem', 'keeping.conv', 'out'})
    net(IMAGES)
    assert net.keeping.losses['balance'].requires_grad
    twin = copy_network(net)
    kept = twin.keeping
    assert torch.equal(kept.last, net.keeping.last)
    assert kept.losses['balance'] is kept.same, 'one tensor stays one'
    for tensor in (kept.last, *kept.maps, kept.same):
        assert tensor.is_leaf and not tensor.requires_grad
    assert kept.last is not net.keeping.last
    assert kept.conv.weight.requires_grad


def test_tracing_leaves_nothing_behind():
    net = build(
        lambda net, x: net.out(net.keeping(x)), keeping=Keeping(), **OUT)
    trace(net, IMAGES)
    assert net.keeping.last is None and net.keeping.maps == []
    assert net.keeping.losses == {} and not hasattr(net.keeping, 'same')


@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize('norm', ['weight_norm', 'spectral_norm'])
def test_old_norms_of_weights(norm, tmp_path):
    more = nn.Sequential(
        getattr(nn.utils, norm)(conv(16, 16)), conv(16, 12), nn.ReLU())
    net = build(lambda net, x: net.out(net.more(x)), **OUT)
    net.more = more  # build() copies, which the old norms cannot
    assert_exported(net, tmp_path, {'stem', 'more.0', 'more.1', 'out'})


@pytest.mark.parametrize(
    'thing', [
        threading.Lock(),
        (n for n in range(3)), swish, [dict(deep=threading.RLock())]
    ],
    ids=['lock', 'generator', 'script', 'nested'])
def test_what_cannot_be_copied_and_is_no_data_is_shared(thing, tmp_path):
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 12), **OUT)
    net.more.thing, net.other = thing, thing
    subnet = assert_exported(net, tmp_path, {'stem', 'more', 'out'})
    assert subnet.more.thing is subnet.other
    if not isinstance(thing, list):
        assert subnet.other is thing


def test_a_scripted_activation(tmp_path):
    net = build(
        lambda net, x: net.out(net.more(net.act(x))), more=conv(16, 12), **OUT)
    net.act = swish
    assert_exported(net, tmp_path, {'more', 'out'})


class Stubborn(nn.Module):
    """A layer that refuses to be copied."""

    def __init__(self):
        super().__init__()
        self.conv = conv(16, 12)

    def forward(self, x):
        return self.conv(x)

    def __deepcopy__(self, memo):
        raise TypeError('there is only one of me')


class StubbornTable:
    """No module, but it has a tensor."""
    table = None

    def __reduce__(self):
        raise TypeError('not me')


def test_a_part_that_cannot_be_copied_is_named_in_the_constructor():
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 12), **OUT)
    net.more = nn.Sequential(Stubborn())
    before = dict(vars(net.more[0]))
    with pytest.raises(
            SubnetError,
            match='Net cannot be copied.*: Stubborn "more.0" fails with '
            'TypeError: there is only one of me. Give its class'):
        Search(net, IMAGES[:1], total_steps=2)
    assert vars(net.more[0]) == before and type(net.out) is nn.Conv2d
    net.more = conv(16, 12)
    net.more.table = StubbornTable()
    net.more.table.table = torch.ones(3)
    with pytest.raises(
            SubnetError,
            match='the StubbornTable that Conv2d '
            '"more" keeps as "table" fails'):
        trace(net, IMAGES)


def test_a_parameter_that_cannot_be_copied_is_named():

    class Own(nn.Parameter):

        def __deepcopy__(self, memo):
            raise NotImplementedError('sharded')

    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 12), **OUT)
    net.more.weight = Own(net.more.weight.data)
    with pytest.raises(
            SubnetError,
            match='"more" keeps as "weight" fails '
            'with NotImplementedError: sharded'):
        check_copy(net, (IMAGES, ), run_model)


def test_a_forward_that_has_to_run_without_gradients_is_no_reason():

    def predict(net, x):
        out = net(x)
        out.numpy()  # fails for a tensor that wants a gradient
        return out

    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 12), **OUT)
    space = trace(net, IMAGES, forward=predict)
    assert set(widths(space)) == {'stem', 'more', 'out'}
    assert space.proof.units == 3
