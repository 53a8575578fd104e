# Copyright (c) dms_razor contributors. All rights reserved.
"""Peak memory in closed form, against what subnets really hold.

Measured by a dispatch mode that sees tensors of ATen and the death of their
storages, and knows nothing of modules, labels or records.
"""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import itertools
import weakref

import pytest
import torch
from mmpretrain.models import VisionTransformer
from small_nets import conv
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dms_razor.subnet.slicing import plain_copy, slice_model
from dms_razor.trace import trace
from tools.zoo.check import Pooled, randomise


class Held(TorchDispatchMode):
    """Bytes of the storages that live, and the most there ever were."""

    def __init__(self, known):
        super().__init__()
        self.known = {tensor.data_ptr() for tensor in known}
        self.live, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                place = storage.data_ptr()
                if place not in self.known and place not in self.live:
                    self.live[place] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, place, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def measured(model, images):
    held = Held([*model.parameters(), *model.buffers(), images])
    with torch.no_grad(), held:
        model.eval()(images)
    return held.peak


class Residual(nn.Module):

    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = conv(width, 2 * width), conv(2 * width, width)

    def forward(self, x):
        return F.relu(x + self.conv2(F.relu(self.conv1(x), inplace=True)))


class Held3(nn.Module):
    """The stage's input is held while its blocks run, and added at the end."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.blocks = nn.Sequential(*[Residual(8) for _ in range(3)])
        self.left, self.right = conv(8, 6, 1), conv(8, 10, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = x + self.blocks(x)
        y = F.max_pool2d(torch.cat([self.left(y), self.right(y)], 1), 2)
        return self.head(y.flatten(2).mean(2))


@pytest.fixture(scope='module')
def traced():
    torch.manual_seed(0)
    net, images = Held3(), torch.randn(1, 3, 16, 16)
    return net, images, trace(net, images, check=False)


def test_the_peak_of_every_depth_and_of_random_widths(traced):
    net, images, space = traced
    depth, = (u for u in space.units if u.kind == 'depth')
    assert depth.size == 3
    place = space.layout.slice_of(space.layout.index(depth.name))
    generator = torch.Generator().manual_seed(0)
    for pattern in range(8):
        selection = space.random_selection(generator)
        selection[place] = torch.tensor(
            [bool(pattern & 1 << bit) for bit in range(3)])
        subnet = slice_model(plain_copy(net), space, selection)
        assert space.cost(selection, 'memory') == measured(subnet, images), \
            pattern


def test_the_peak_by_hand(traced):
    """At the concatenation: the stage's input, ``y``, both parts of 6 and 10
    channels and what becomes of them."""
    _, _, space = traced
    assert space.resource.supernet('memory') == 4 * 16 * 16 * (8 + 8 + 6 + 10 +
                                                               16)


def test_costs_are_of_one_sample():
    torch.manual_seed(0)
    spaces = [
        trace(Held3(), torch.randn(n, 3, 16, 16), check=False) for n in (1, 3)
    ]
    one, three = (space.resource.supernet('memory') for space in spaces)
    assert one == three


RUNS = itertools.count()  # no attribute: those are put back


class Twice(nn.Module):
    """A forward that does something else every time."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.conv(x)
        for _ in range(next(RUNS)):
            x = F.relu(x)
        return self.head(x.mean((2, 3)))


def test_a_forward_that_changes_has_no_memory_and_is_searched():
    space = trace(Twice(), torch.randn(1, 3, 8, 8), check=False)
    assert space.resource.metrics == ('macs', 'params')
    with pytest.raises(ValueError, match='no costs in "memory"'):
        space.resource.supernet('memory')


@pytest.fixture(scope='module')
def transformer():
    """A narrow feedforward layer: attention holds the peak."""
    torch.manual_seed(0)
    arch = dict(
        embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=8)
    image = torch.randn(1, 3, 64, 64)
    net = VisionTransformer(arch, img_size=64, patch_size=8)
    net = randomise(Pooled(net, image)).eval()
    return net, image, trace(net, image, check=False, metrics=['memory'])


def dims_kept(space, qk, v):
    """A selection with so many dims of each head's queries and values."""
    selection = torch.ones(space.layout.E, dtype=torch.bool)
    for unit, kept in zip(space.units, space.rows(selection)):
        for kind, dims in (('qk', qk), ('v', v)):
            if unit.kind == kind:
                rows = torch.arange(unit.elements).view(3, 8)[:, dims:]
                place = space.layout.slice_of(space.layout.index(unit.name))
                selection[place.start + rows.flatten()] = False
    return selection


@pytest.mark.parametrize('qk, v', [(8, 3), (8, 5), (7, 8), (2, 8), (3, 5)])
def test_attention_with_other_dims_of_queries_than_of_values(
        transformer, qk, v):
    """Filled up for PyTorch's fused kernel, whose own sums are not seen."""
    net, image, space = transformer
    selection = dims_kept(space, qk, v)
    held = measured(
        slice_model(plain_copy(net), space, selection).eval(), image)
    sums = 4 * 3 * 65
    assert space.cost(selection, 'memory') == held - sums


@pytest.mark.parametrize('qk, v', [(8, 8), (8, 7), (4, 4)])
def test_dims_that_may_differ_are_never_counted_too_low(transformer, qk, v):
    net, image, space = transformer
    selection = dims_kept(space, qk, v)
    held = measured(
        slice_model(plain_copy(net), space, selection).eval(), image)
    assert held <= space.cost(selection, 'memory') < 1.34 * held


def test_dims_that_no_search_can_part_are_counted_as_they_are(transformer):
    net, image, _ = transformer
    space = trace(
        net, image, check=False, metrics=['memory'], qk=False, v=False)
    assert space.resource.supernet('memory') == measured(net, image)


class Attends(nn.Module):
    """torch's attention holds the peak: nothing else is as wide."""

    def __init__(self, need_weights):
        super().__init__()
        self.need_weights, self.head = need_weights, nn.Linear(48, 5)
        self.attention = nn.MultiheadAttention(48, 3, batch_first=True)

    def forward(self, x):
        x = self.attention(x, x, x, need_weights=self.need_weights)[0]
        return self.head(x)


@pytest.mark.parametrize('need_weights', [True, False])
def test_what_torchs_attention_holds_while_it_runs(need_weights):
    """It is one call to the record; its maps are exact, and where dims may
    differ the copies for that, or the class's own, are counted."""
    torch.manual_seed(0)
    net, x = Attends(need_weights).eval(), torch.randn(1, 64, 48)
    space = trace(net, x, check=False, metrics=['memory'])
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        selection = space.random_selection(generator)
        held = measured(slice_model(plain_copy(net), space, selection), x)
        found = space.cost(selection, 'memory') / held
        assert found == 1 if need_weights else .98 < found < 1.25
    whole = space.resource.supernet('memory')
    assert whole >= measured(net, x)


def test_traffic_and_latency_see_no_insides():
    """They count what operations return, as before."""
    torch.manual_seed(0)
    net, x = Attends(False).eval(), torch.randn(1, 64, 48)
    space = trace(net, x, check=False, metrics=['traffic'])
    assert space.resource.supernet('traffic') == 4 * 64 * (48 + 5)
