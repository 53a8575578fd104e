# Copyright (c) dms_razor contributors. All rights reserved.
"""How channels pass through operations, on small networks of one idea."""
import pytest
import torch
from equality import assert_true, reasons, unit_table
from torch import nn
from torch.nn import functional as F

from dms_razor.trace import trace

IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A stem, something in the middle, and a linear head."""

    def __init__(self, middle, width=12, out=None):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.middle = middle
        self.head = nn.Linear(out or width, 5)

    def forward(self, x):
        x = self.middle(torch.tanh(self.stem(x)))
        return self.head(x.mean((2, 3)))


class Apply(nn.Module):
    """A function with layers of its own."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def conv(inputs, outputs, **kwargs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **kwargs)


def shuffle(x, groups):
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, -1, height, width)


class Splits(nn.Module):
    """Cuts its channels by a number of its own, as Res2Net does."""

    def __init__(self):
        super().__init__()
        self.width = 6
        self.a, self.b = conv(6, 6), conv(6, 6)

    def forward(self, x):
        first, second = torch.split(x, self.width, 1)
        return torch.cat([self.a(first), self.b(second)], 1)


CASES = {
    'chunk':
    lambda: Apply(
        lambda s, x: s.a(x.chunk(2, 1)[0]) + s.b(x.chunk(2, 1)[1]),
        a=conv(6, 12),
        b=conv(6, 12)),
    'slices':
    lambda: Apply(
        lambda s, x: s.a(x[:, :x.shape[1] // 2]) + x[:, x.shape[1] // 2:].mean(
            1, keepdim=True),
        a=conv(6, 12)),
    'split by an attribute':
    Splits,
    'shuffle':
    lambda: Apply(
        lambda s, x: s.a(shuffle(s.g(x), 4)),
        g=conv(12, 12, groups=4),
        a=conv(12, 12)),
    'the same twice':
    lambda: Apply(lambda s, x: s.a(torch.cat([x, x], 1)), a=conv(24, 12)),
    'shared layer':
    lambda: Apply(lambda s, x: s.a(s.a(x)), a=conv(12, 12)),
    'depthwise with multiplier':
    lambda: Apply(
        lambda s, x: s.a(s.d(x)), d=conv(12, 24, groups=12), a=conv(24, 12)),
    'squeeze and excitation':
    lambda: Apply(
        lambda s, x: x * s.b(s.a(x.mean(
            (2, 3), keepdim=True)).relu()).sigmoid(),
        a=nn.Conv2d(12, 4, 1),
        b=nn.Conv2d(4, 12, 1)),
    'PReLU':
    lambda: nn.Sequential(nn.PReLU(12), conv(12, 12)),
    'transposed':
    lambda: nn.ConvTranspose2d(12, 12, 2, stride=2),
    'norms':
    lambda: nn.Sequential(
        conv(12, 12), nn.BatchNorm2d(12), nn.ReLU(), conv(12, 12),
        nn.GroupNorm(3, 12), nn.InstanceNorm2d(12, affine=True), nn.ReLU()
    ),  # else the mean over positions is the same for any input
    'padded channels':
    lambda: Apply(
        lambda s, x: s.a(F.pad(x, (0, 0, 0, 0, 2, 2))), a=conv(16, 12)),
    'computed weight':
    lambda: Apply(
        lambda s, x: F.conv2d(x, s.a.weight * 2, padding=1), a=conv(12, 12)),
    'channel mean':
    lambda: Apply(lambda s, x: x * x.mean(1, keepdim=True), a=nn.Identity()),
    'sorted channels':
    lambda: Apply(lambda s, x: s.a(x.sort(1).values), a=conv(12, 12)),
}


@pytest.mark.parametrize('name', CASES)
def test_operation(name):
    torch.manual_seed(0)
    # A unit that is surely prunable stands beside the one in question.
    middle = nn.Sequential(conv(12, 8), nn.ReLU(), conv(8, 12), CASES[name]())
    # In double precision: two ways to add up a norm differ by 1e-6 in single.
    assert_true(Net(middle).double(), IMAGE.double())


def test_flatten_repeats_a_channel():

    class Flat(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv, self.fc = conv(3, 6), nn.Linear(6 * 64, 5)

        def forward(self, x):
            return self.fc(torch.tanh(self.conv(x)).flatten(1))

    space = assert_true(Flat(), IMAGE)
    assert unit_table(space) == {'conv': ('width', 6, 1)}


@pytest.mark.parametrize('dims', [1, 3])
def test_other_dimensions(dims):
    convolution = (nn.Conv1d, None, nn.Conv3d)[dims - 1]
    network = nn.Sequential(
        convolution(3, 8, 3), nn.ReLU(), convolution(8, 6, 1),
        nn.Flatten(2)) if dims == 3 else nn.Sequential(
            convolution(3, 8, 3), nn.ReLU(), convolution(8, 6, 1))
    assert_true(network, torch.rand(2, 3, *(5, ) * dims))


def test_what_is_not_understood_is_named():
    middle = CASES['sorted channels']()
    stay = reasons(trace(Net(middle), IMAGE))
    assert 'sort' in stay['stem']


class Residual(nn.Module):
    """``after(x + branch(x))``."""

    def __init__(self, branch, after=None):
        super().__init__()
        self.branch, self.after = branch, after or nn.Identity()

    def forward(self, x):
        return self.after(x + self.branch(x))


def stage(make, number=3):
    return nn.Sequential(nn.ReLU(), *[make() for _ in range(number)])


@pytest.mark.parametrize(
    'make, blocks',
    [
        (lambda: Residual(conv(12, 12)), 3),
        (lambda: Residual(
            nn.Sequential(
                conv(12, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 12),
                nn.BatchNorm2d(12)), nn.ReLU()), 3),
        (lambda: Residual(nn.Sequential(conv(12, 12), nn.Tanh())), 3),
        (lambda: Residual(
            nn.Sequential(conv(12, 12), nn.BatchNorm2d(12, affine=False))), 3),
        (lambda: Residual(conv(12, 12), nn.LeakyReLU()), 3),  # its branch
    ])
def test_residual_blocks(make, blocks):
    space = assert_true(Net(stage(make)), IMAGE)
    assert len(space.blocks) == blocks
    if not blocks:
        assert any('leaky_relu' in reason
                   for reason in reasons(space).values())


def test_a_block_whose_inside_is_read_elsewhere_stays():

    class Leaky(nn.Module):

        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                Residual(conv(12, 12)) for _ in range(2))

        def forward(self, x):
            inside = []
            handle = self.blocks[0].branch.register_forward_hook(
                lambda m, a, out: inside.append(out))
            for block in self.blocks:
                x = block(x)
            handle.remove()
            return x * inside[0].sigmoid()

    space = assert_true(Net(Leaky()), IMAGE)
    assert [block.path for block in space.blocks] == ['middle.blocks.1']


def test_a_stage_with_another_width_is_another_unit():
    middle = nn.Sequential(
        Residual(conv(12, 12)), Residual(conv(12, 12)), conv(12, 16),
        Residual(conv(16, 16)))
    space = assert_true(Net(middle, out=16), IMAGE)
    assert [u.size for u in space.units if u.kind == 'depth'] == [2, 1]


@pytest.mark.parametrize('options, unit', [
    (dict(fixed=True), None),
    (dict(divisor=4), ('width', 3, 1)),
])
def test_options_of_a_unit(options, unit):
    net = Net(nn.Sequential(conv(12, 8), nn.ReLU(), conv(8, 12)))
    space = assert_true(net, IMAGE, units={'ste*': options})
    assert unit_table(space).get('stem') == unit


def test_bounds_of_a_unit():
    net = Net(nn.Sequential(conv(12, 8), nn.ReLU(), conv(8, 12)))
    space = trace(net, IMAGE, units={'stem': dict(least=4, most=8)})
    stem = next(u for u in space.units if u.name == 'stem')
    assert (stem.size, stem.least, stem.most) == (12, 4, 8)


@pytest.mark.parametrize('units, complaint', [
    ({
        'nothing*': dict(fixed=True)
    }, 'matches nothing'),
    ({
        'stem': dict(stride=2)
    }, 'unknown option'),
    ({
        'stem': dict(divisor=0)
    }, 'no positive whole number'),
    ({
        '*': dict(fixed=True)
    }, 'nothing can be pruned'),
])
def test_bad_options(units, complaint):
    with pytest.raises(ValueError, match=complaint):
        trace(Net(conv(12, 12)), IMAGE, units=units)


def test_a_forward_that_fails_is_named_and_leaves_no_mark():
    net = Net(conv(12, 12)).train()
    with pytest.raises(RuntimeError, match='fails on the example input'):
        trace(net, torch.rand(2, 4, 8, 8))
    assert net.training and not any(m._forward_hooks or m._forward_pre_hooks
                                    for m in net.modules())
