# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from test_subnet.helpers import images, net
from torch import nn

from dms_razor.counting import TORCH
from dms_razor.subnet import SubnetError, count_macs, count_params

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
