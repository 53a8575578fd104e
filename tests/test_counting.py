# Copyright (c) dms_razor contributors. All rights reserved.
import importlib.util
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from test_subnet.helpers import images, net
from torch import nn

from dms_razor import Search
from dms_razor.counting import TORCH, every_product
from dms_razor.subnet import SubnetError, count_macs, count_params
from dms_razor.subnet.checks import check_counts
from dms_razor.trace import trace

# Net on 8 x 8 images, by hand: stem, blocks, depthwise, expand, grouped (on
# 4 x 4, half of the inputs each), last, two linear layers
MACS = dict(
    stem=27 * 8 * 64,
    depthwise=9 * 8 * 64,
    expand=8 * 12 * 64,
    grouped=9 * 6 * 8 * 16,
    last=8 * 16 * 16,
    fc=64 * 5,
    twin=64 * 5)
for _number in range(2):
    MACS[f'stage.{_number}.conv1'] = 8 * 6 * 64
    MACS[f'stage.{_number}.conv2'] = 9 * 6 * 8 * 64


@dataclass
class Output:
    """What some networks return."""
    logits: torch.Tensor


class Mixed(nn.Module):
    """Everything that is a product, with little else."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 8, 3, padding='same')
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x, scale=None, **kwargs):
        x = self.up(self.same(self.same_size(x))).flatten(2).transpose(1, 2)
        x = self.norm(x)
        y = nn.functional.scaled_dot_product_attention(x, x, x[..., :3])
        z = self.attention(x, x, x)[0]
        return dict(product=z @ z.transpose(1, 2), others=[y, (x, )])

    @staticmethod
    def same_size(x):
        return x


# 4 x 4 image -> 64 tokens of 4 dims
MIXED = {
    'same': 27 * 8 * 16,
    'up': 8 * 4 * 4 * 16,
    'attention': 64 * 4 * 12 + 2 * 64 * 64 * 4 + 64 * 4 * 4,
    '': 64 * 64 * 4 + 64 * 64 * 3 + 64 * 64 * 4
}


def test_every_kind_of_product():
    count = count_macs(Mixed(), torch.zeros(1, 3, 4, 4))
    assert count.by_module == MIXED
    assert count.macs == sum(MIXED.values())
    assert count.tool == TORCH


def test_net_by_hand():
    count = count_macs(net(), images(1))
    assert count.by_module == MACS
    twice = count_macs(net(), (images(2), ))
    assert twice.macs == 2 * count.macs == 2 * sum(MACS.values())


def test_a_layer_called_twice_counts_twice():
    shared = nn.Linear(4, 4)
    count = count_macs(
        nn.Sequential(shared, nn.ReLU(), shared), torch.ones(1, 4))
    assert count.by_module == {'0': 32}


def test_inputs_of_all_kinds():
    model, macs = Mixed(), sum(MIXED.values())
    x = torch.zeros(1, 3, 4, 4)
    assert count_macs(model, dict(x=x, flag=True)).macs == macs
    assert count_macs(model, [x, None]).macs == macs

    def half(model, x):
        return model.same(x)

    assert count_macs(model, x, forward=half).macs == MIXED['same']


def test_nothing_is_changed():

    class Noise(nn.Module):

        def forward(self, x):
            return x + torch.rand_like(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Noise())
    model[1].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    count_macs(model, torch.ones(2, 3, 4, 4))
    assert torch.equal(random, torch.get_rng_state())
    assert [m.training for m in model] == [True, False, True]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks
                   for m in model.modules())


def test_a_forward_that_fails():
    model = nn.Linear(4, 2)
    with pytest.raises(
            SubnetError,
            match='MACs of Linear cannot be counted: '
            'its forward pass fails with RuntimeError.*Pass'):
        count_macs(model, torch.ones(1, 3))
    assert model.training


def test_parameters():
    model = net()
    unique = {id(p): p.numel() for p in model.parameters()}
    assert count_params(model) == sum(unique.values())
    assert count_params(model) == sum(
        t.numel() for n, t in model.state_dict().items() if n != 'twin.weight'
        and 'running' not in n and 'num_b' not in n and n != 'counter')


def test_without_mmengine(run_python):
    done = run_python('''
import sys
for name in ('mmengine', 'mmcv', 'mmrazor'):
    sys.modules[name] = None
import torch
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *a: None if name == 'mmengine' else find(name)
from dms_razor.subnet import count_macs
print(count_macs(torch.nn.Linear(3, 5), torch.ones(2, 3)))
''')
    assert done.returncode == 0, done.stderr
    assert "total=30, by_module={'': 30}, tool='torch.utils" in done.stdout


STEPS, BATCH, INSIDE, HIDDEN = 7, 3, 6, 5
#: Multiply-adds of one step of one sample: from the input and from the state.
GATE = HIDDEN * (INSIDE + HIDDEN)
RECURRENT = {
    'LSTM': (nn.LSTM(INSIDE, HIDDEN), STEPS * 4 * GATE),
    'GRU': (nn.GRU(INSIDE, HIDDEN), STEPS * 3 * GATE),
    'RNN': (nn.RNN(INSIDE, HIDDEN), STEPS * GATE),
    'RNN of ReLU': (nn.RNN(INSIDE, HIDDEN, nonlinearity='relu'), STEPS * GATE),
    'two ways': (nn.LSTM(INSIDE, HIDDEN,
                         bidirectional=True), STEPS * 2 * 4 * GATE),
    'two layers': (nn.LSTM(INSIDE, HIDDEN,
                           2), STEPS * 4 * (GATE + HIDDEN * 2 * HIDDEN)),
    'projected':
    (nn.LSTM(INSIDE, HIDDEN,
             proj_size=2), STEPS * (4 * HIDDEN * (INSIDE + 2) + HIDDEN * 2)),
    'LSTMCell': (nn.LSTMCell(INSIDE, HIDDEN), 4 * GATE),
    'GRUCell': (nn.GRUCell(INSIDE, HIDDEN), 3 * GATE),
    'RNNCell': (nn.RNNCell(INSIDE, HIDDEN), GATE),
    'RNNCell of ReLU': (nn.RNNCell(INSIDE, HIDDEN, nonlinearity='relu'), GATE),
}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function, **numbers):
        super().__init__()
        self.function = function
        for name, shape in numbers.items():
            setattr(self, name, nn.Parameter(torch.rand(shape)))

    def forward(self, *inputs):
        return self.function(self, *inputs)


class Between(nn.Module):
    """A layer of 6 features between others: ``[3, 4]`` to ``[3, 2]``."""

    def __init__(self, layer, steps=False):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, INSIDE)
        self.layer, self.steps = layer, steps

    def forward(self, x):
        x = self.second(self.first(x).relu())
        x = self.layer(x.expand(STEPS, BATCH, INSIDE) if self.steps else x)
        return x[0] if isinstance(x, tuple) else x


def assert_counted(layer, macs, steps=False):
    """Of one sample; by us, in the search, and what stays is named."""
    net, x = Between(layer, steps), torch.rand(BATCH, 4)
    before = BATCH * (4 * 8 + 8 * INSIDE)
    if steps:  # the second linear layer runs once
        assert net(x).shape[0] == STEPS
    count = count_macs(net, x)
    assert count.macs == before + BATCH * macs
    space = trace(net, x, batch_size=BATCH)
    check_counts(net, space)
    assert space.counted['macs'] == count
    assert space.resource.supernet() == 4 * 8 + 8 * INSIDE + macs
    units = [unit.name for unit in space.units]
    stays = {stay.module for stay in space.full_width}
    assert units[0] == 'first' and 'layer' in stays
    # What the layer reads is a unit where its rule is known.
    assert set(units[1:]) | stays >= {'second'} >= set(units[1:])
    return count


@pytest.mark.parametrize('name', RECURRENT)
def test_recurrent_layers_by_hand(name):
    layer, macs = RECURRENT[name]
    count = assert_counted(layer, macs, 'Cell' not in name)
    assert count.by_module['layer'] == BATCH * macs
    assert count.tool == TORCH


def test_recurrent_layers_run_as_before_afterwards():
    enabled = torch._C._get_mkldnn_enabled()
    kinds = ('flash', 'mem_efficient', 'math')

    def switches():
        return [
            getattr(torch.backends.cuda, f'{kind}_sdp_enabled')()
            for kind in kinds
        ] + [torch._C._get_mkldnn_enabled()]

    before = switches()
    with pytest.raises(ValueError):
        with every_product():
            assert switches() == [False, False, True, False]
            raise ValueError
    assert switches() == before and before[-1] == enabled


@pytest.mark.parametrize('layer, macs, name', [
    (nn.Bilinear(INSIDE, 4, 2), 2 * INSIDE * 4, '_trilinear'),
    (Function(lambda net, x: x @ net.vector, vector=[INSIDE]), INSIDE, 'mv'),
    (Function(
        lambda net, x: torch.mv(x, net.vector)[:, None],
        vector=[INSIDE]), INSIDE, 'mv'),
    (Function(
        lambda net, x: x + torch.dot(x.flatten(), net.vector),
        vector=[BATCH * INSIDE]), INSIDE, 'dot'),
    (Function(
        lambda net, x: x + torch.vdot(x.flatten(), net.vector),
        vector=[BATCH * INSIDE]), INSIDE, 'vdot'),
    (Function(
        lambda net, x: torch.addmv(net.bias, x, net.vector),
        vector=[INSIDE],
        bias=[BATCH]), INSIDE, 'addmv'),
    (Function(
        lambda net, x: torch.zeros(BATCH).addmv_(x, net.vector),
        vector=[INSIDE]), INSIDE, 'addmv_'),
    (Function(
        lambda net, x: torch.addbmm(net.bias, x[None], net.matrix),
        matrix=[1, INSIDE, 2],
        bias=[BATCH, 2]), 2 * INSIDE, 'addbmm'),
    (Function(
        lambda net, x: torch.zeros(BATCH, 2).addmm_(x, net.matrix),
        matrix=[INSIDE, 2]), 2 * INSIDE, 'addmm_'),
    (Function(
        lambda net, x: torch.conv_tbc(x[:, None], net.kernel, net.bias, 1),
        kernel=[3, INSIDE, 2],
        bias=[2]), 3 * INSIDE * 2, 'conv_tbc'),
])
def test_counters_of_our_own_by_hand(layer, macs, name):
    if isinstance(layer, nn.Bilinear):
        bilinear, vector = layer, torch.rand(BATCH, 4)
        layer = Function(lambda net, x: net.bilinear(x, vector))
        layer.bilinear = bilinear
        count = count_macs(layer, torch.rand(BATCH, INSIDE))
        assert count.by_module == {'bilinear': BATCH * macs}
        assert f'(aten.{name} by dms_razor)' in count.tool
        return
    count = assert_counted(layer, macs)
    assert f'(aten.{name} by dms_razor)' in count.tool


@pytest.mark.parametrize(
    'operation',
    [nn.functional.grouped_mm] if hasattr(nn.functional, 'grouped_mm') else [])
def test_products_in_groups_by_hand(operation):
    """Each row meets one matrix, however many there are."""
    ends = torch.tensor([2, 2, 6], dtype=torch.int32)
    layer = Function(
        lambda net, x: operation(x, net.w.transpose(1, 2), offs=ends),
        w=[3, 8, 4])
    count = count_macs(layer, torch.rand(6, 4))
    assert count.macs == 6 * 4 * 8
    assert '(aten._grouped_mm by dms_razor)' in count.tool


@pytest.mark.parametrize('operation', [
    lambda x, y: torch.baddbmm(torch.zeros(1), x[None], y[None]),
    lambda x, y: torch.zeros(1, 3, 5).baddbmm_(x[None], y[None]),
    lambda x, y: torch.einsum('bi,ic->bc', x, y),
    lambda x, y: torch.tensordot(x, y, 1),
    lambda x, y: torch.inner(x, y.T),
    lambda x, y: torch.linalg.multi_dot([x, y]),
])
def test_products_of_matrices(operation):
    layer = Function(lambda net, x, y: operation(x, y))
    count = count_macs(layer, (torch.rand(3, 4), torch.rand(4, 5)))
    assert count.macs == 3 * 4 * 5


class Attention(nn.Module):
    """Four heads, through PyTorch's fused function."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.last = nn.Linear(32, 5)

    def forward(self, x):
        x = self.first(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return self.last(x.mean(1))


@pytest.mark.parametrize('net, macs', [
    (Attention(), 12 *
     (16 * 32 + 32 * 96 + 32 * 32) + 2 * 12 * 12 * 32 + 32 * 5),
    (nn.Sequential(
        nn.Linear(16, 32),
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
        nn.Linear(32, 4)), 12 * (16 * 32 + 32 * 96 + 32 * 32 + 2 * 32 * 64) +
     2 * 12 * 12 * 32 + 12 * 32 * 4),
])
def test_attention_of_a_plain_install(net, macs, tmp_path, monkeypatch):
    """Whatever is installed: torch's own decomposition is what counts."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *more: None
        if name == 'mmengine' else find(name, *more))
    search = Search(net, torch.rand(1, 12, 16), '80%', total_steps=4)
    assert search.space.counted['macs'].macs == macs
    assert search.space.resource.supernet() == macs
    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.manifest.macs['counted'] <= .8 * macs


def test_lstm_behind_convolutions(tmp_path):
    """The share of the LSTM is in the budget, and it is searched."""

    class CRNN(nn.Module):

        def __init__(self):
            super().__init__()
            self.first = nn.Conv1d(40, 64, 3, padding=1)
            self.second = nn.Conv1d(64, 64, 3, padding=1)
            self.lstm = nn.LSTM(64, 256, 2, batch_first=True)
            self.fc = nn.Linear(256, 10)

        def forward(self, x):
            x = self.second(self.first(x).relu()).relu()
            return self.fc(self.lstm(x.transpose(1, 2))[0])

    lstm = 20 * 4 * 256 * (64 + 256 + 2 * 256)
    whole = lstm + 20 * (40 * 64 * 3 + 64 * 64 * 3 + 256 * 10)
    search = Search(CRNN(), torch.rand(1, 40, 20), '50%', total_steps=4)
    assert search.preflight().supernet['macs'] == whole == 17_489_920
    units = {u.name: (u.size, u.groups) for u in search.space.units}
    assert units['lstm'] == (256, 2), 'as many in both layers'
    report = search.export(tmp_path / 'subnet', picture=False).report
    layers = {layer.name: layer.macs for layer in report.layers}
    assert layers['lstm'][1] < layers['lstm'][0] == lstm


@pytest.mark.parametrize('wrap', [
    lambda y: SimpleNamespace(logits=y), lambda y: OrderedDict(logits=y),
    lambda y: Output(y)
])
def test_a_forward_that_returns_an_object(wrap, tmp_path):
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6),
        Function(lambda net, x: wrap(x)))
    search = Search(net, torch.rand(1, 4), '60%', total_steps=4)
    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.manifest.macs['supernet'] == 4 * 8 + 8 * 6
    assert export.model(torch.rand(1, 4)) is not None


class _Token(nn.Module):
    """Hands a view of a parameter to a layer, as CaiT does."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 4))
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(self.token.expand(len(x), -1)) + self.layer(x)


def test_a_parameter_that_is_the_argument_of_a_layer():
    """PyTorch's counter fails on it without gradients."""
    model = _Token()
    model.layer.bias.requires_grad_(False)
    assert count_macs(model, torch.zeros(5, 4)).total == (5 + 5) * 12
    assert [p.requires_grad for p in model.parameters()] == [True, True, False]
