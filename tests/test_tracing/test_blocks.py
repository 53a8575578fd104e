# Copyright (c) dms_razor contributors. All rights reserved.
"""Which blocks can be removed, and which stages they form."""
import pytest
import torch
from equality import assert_true, reasons
from small_nets import IMAGES, Block, Net, build, conv, depths, widths
from torch import nn
from torch.nn import functional as F

from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

OUT = dict(out=conv(16, 8))


def through(blocks):
    """A middle that runs a list of blocks one after the other."""

    def middle(net, x):
        for block in net.blocks:
            x = block(x)
        return net.out(x)

    return build(middle, blocks=nn.ModuleList(blocks), **OUT)


def traced(*blocks):
    """The proven space of a stage of blocks."""
    return assert_true(through(blocks), IMAGES, number=3)


def stays(space):
    """Block -> reason, of the blocks alone."""
    return {
        module: reason
        for module, reason in reasons(space).items()
        if module.startswith('blocks.') and module.count('.') == 1
    }


def branches(space):
    """Blocks of which the branch goes, not the module."""
    return [block.path for block in space.blocks if block.branch]


THREE = {'blocks': ('blocks.0', 'blocks.1', 'blocks.2')}


@pytest.mark.parametrize('act', [F.relu, F.relu6, nn.ReLU6(), nn.Identity()])
def test_an_idempotent_function_may_follow_the_addition(act):
    # The first block reads the ReLU of the stem: ReLU6 would still act on it.
    space = traced(*[Block(act=act) for _ in range(3)])
    assert depths(space) == THREE and not stays(space)
    again = act is not F.relu and not isinstance(act, nn.Identity)
    assert branches(space) == ['blocks.0'] * again


@pytest.mark.parametrize(
    'act', [lambda x: F.leaky_relu(x, .1), F.silu, F.gelu,
            nn.PReLU()])
def test_of_a_block_with_another_function_behind_the_branch_goes(act):
    space = traced(*[Block(act=act) for _ in range(3)])
    assert depths(space) == THREE and not stays(space)
    assert branches(space) == ['blocks.0', 'blocks.1', 'blocks.2']


def test_of_a_block_with_a_norm_behind_the_branch_goes():

    class PostNorm(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv, self.norm = conv(16, 16), nn.BatchNorm2d(16)

        def forward(self, x):
            return self.norm(x + self.conv(x))

    space = traced(PostNorm(), PostNorm())
    assert branches(space) == ['blocks.0', 'blocks.1'] and not stays(space)


def test_clipping_to_other_bounds_is_not_idempotent():

    class Clip(nn.Module):

        def __init__(self, bound):
            super().__init__()
            self.conv, self.bound = conv(16, 16), bound

        def forward(self, x):
            return F.hardtanh(x + self.conv(x), -self.bound, self.bound)

    space = traced(Clip(2.), Clip(1.), Clip(1.))
    assert depths(space) == THREE
    assert branches(space) == ['blocks.0', 'blocks.1']


class PreAct(nn.Module):
    """Pre-activation block; its branch ends in a convolution."""

    def __init__(self, inplace=False):
        super().__init__()
        self.norm, self.inplace = nn.BatchNorm2d(16), inplace
        self.conv1, self.conv2 = conv(16, 12), conv(12, 16)

    def forward(self, x):
        y = F.relu(self.norm(x), inplace=True)
        return x + self.conv2(F.relu(self.conv1(y)))


class InPlaceStart(PreAct):
    """Changes its input: without it the network would go on with another."""

    def forward(self, x):
        return x + self.conv2(self.conv1(F.relu(self.norm(x.mul_(.5)))))


def test_pre_activation_blocks_end_in_their_convolution():
    space = traced(PreAct(), PreAct(), PreAct())
    assert depths(space) == THREE
    tail, = space.blocks[0].tails
    assert (tail.module, tail.fold) == ('blocks.0.conv2', True)


def test_of_a_block_that_changes_its_input_the_branch_goes():
    space = traced(InPlaceStart(), PreAct())
    assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
    assert branches(space) == ['blocks.0']


def test_a_norm_without_scale_is_masked_behind():
    space = traced(Block(affine=False), Block(affine=False))
    tail, = space.blocks[0].tails
    assert (tail.module, tail.fold) == ('blocks.0.norm', False)


class TwoTails(nn.Module):
    """x + a(x), then + c(b(.)): both go together."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(16, 16), conv(16, 12), conv(12, 16)

    def forward(self, x):
        x = x + self.a(x)
        return x + self.c(self.b(x).relu())


def test_two_branches_one_after_the_other():
    space = traced(TwoTails(), TwoTails())
    assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
    assert [t.module
            for t in space.blocks[1].tails] == ['blocks.1.a', 'blocks.1.c']


class Scaled(nn.Module):
    """The branch ends in a function of a module's output."""

    def __init__(self, scale):
        super().__init__()
        self.conv, self.scale = conv(16, 16), scale
        self.gamma = nn.Parameter(torch.full((16, 1, 1), 1e-6))

    def forward(self, x):
        return x + self.scale(self, self.conv(x))


@pytest.mark.parametrize('scale,fold', [
    (lambda block, y: y * .5, True),
    (lambda block, y: block.gamma * y, True),
    (lambda block, y: F.dropout(-y.transpose(2, 3).transpose(3, 2), 0.), True),
    (lambda block, y: y * y, None),
    (lambda block, y: y * y.mean((2, 3), True).sigmoid(), None),
    (lambda block, y: y + .1, None),
    (lambda block, y: y.relu(), None),
])
def test_what_a_scale_can_be_moved_through(scale, fold):
    space = traced(Scaled(scale), Scaled(scale))
    if fold is None:
        assert not depths(space)
        assert 'not the output of a module' in stays(space)['blocks.0']
    else:
        assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
        assert [t.fold for b in space.blocks for t in b.tails] == [fold] * 2


def test_a_module_in_the_middle_of_the_tail_is_hooked():

    class Pooled(nn.Module):

        def __init__(self):
            super().__init__()
            self.mix = Mix()
            self.gamma = nn.Parameter(torch.rand(16, 1, 1))

        def forward(self, x):
            return x + self.gamma * self.mix(x)

    class Mix(nn.Module):

        def forward(self, x):
            return F.avg_pool2d(x, 3, 1, 1) - x

    space = traced(Pooled(), Pooled())
    tail, = space.blocks[0].tails
    assert (tail.module, tail.fold) == ('blocks.0.mix', False)


def test_inner_features_that_leak_keep_the_block():

    class Leaky(Block):

        def forward(self, x):
            self.seen = self.conv1(x)
            return x + self.norm(self.conv2(self.seen))

    def middle(net, x):
        x = net.blocks(x)
        return net.out(x + net.blocks[0].seen)

    net = build(middle, blocks=nn.Sequential(Leaky(), Leaky(), Leaky()), **OUT)
    space = assert_true(net, IMAGES)
    assert depths(space) == {'blocks': ('blocks.1', 'blocks.2')}
    assert 'used outside' in stays(space)['blocks.0']


def test_inner_features_that_are_returned_keep_the_block():

    class Seen(Block):

        def forward(self, x):
            self.seen = self.conv1(x)
            return x + self.norm(self.conv2(self.seen))

    class Both(Net):

        def forward(self, x):
            return super().forward(x), self.blocks[1].seen

    net = Both(
        lambda net, x: net.out(net.blocks(x)),
        blocks=nn.Sequential(Seen(), Seen()),
        **OUT)
    space = assert_true(net, IMAGES)
    assert depths(space) == {'blocks': ('blocks.0', )}
    assert reasons(space)['blocks.1.conv1'] == 'output of the network'


class Called(Block):
    """Takes more than it needs; returns what ``wrap`` makes of it."""

    def __init__(self, wrap=lambda x: x):
        super().__init__()
        self.wrap = wrap

    def forward(self, x, size=None):
        return self.wrap(super().forward(x))


@pytest.mark.parametrize('call,whole', [
    (lambda block, x: block(x, (8, 8)), True),
    (lambda block, x: block(x, size=8), True),
    (lambda block, x: block(x=x), False),
])
def test_how_a_block_is_called(call, whole):

    def middle(net, x):
        for block in net.blocks:
            x = call(block, x)
        return net.out(x)

    net = build(middle, blocks=nn.ModuleList([Called(), Called()]), **OUT)
    space = assert_true(net, IMAGES)
    assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
    assert bool(branches(space)) != whole
    assert len(widths(space)) == 4  # none was fixed for the blocks' sake


@pytest.mark.parametrize('images', [IMAGES, IMAGES[:1]])
def test_of_blocks_that_return_a_tuple_the_branches_go(images):
    # On a batch of one, x[0] of an identity has the right entries.
    def middle(net, x):
        for block in net.blocks:
            x = block(x)[0]
        return net.out(x)

    blocks = nn.ModuleList([Called(lambda x: (x, )), Called(lambda x: (x, ))])
    space = assert_true(build(middle, blocks=blocks, **OUT), images)
    assert branches(space) == ['blocks.0', 'blocks.1']


def test_blocks_that_share_a_layer_stay():
    # Without one of them its layer would still be there for the other.
    class Using(nn.Module):

        def __init__(self, shared):
            super().__init__()
            self.shared, self.own = shared, conv(16, 16)

        def forward(self, x):
            return x + self.own(self.shared(x).relu())

    shared = conv(16, 16)
    space = traced(Using(shared), Using(shared), Using(conv(16, 16)))
    assert depths(space) == {'blocks': ('blocks.2', )}
    assert stays(space)['blocks.0'] == (
        'it shares parameters with "blocks.1.shared.weight"')


def test_a_block_that_runs_twice_stays():
    twice = Block()
    space = traced(twice, Block(), twice)
    assert depths(space) == {'blocks': ('blocks.1', )}


def test_a_stage_of_equal_blocks_is_no_block():

    class Stage(nn.Module):

        def __init__(self, *blocks):
            super().__init__()
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    none = nn.Identity()
    net = build(
        lambda net, x: net.out(net.stage2(net.stage1(x))),
        stage1=Stage(Block(act=none), Block(act=none)),
        stage2=Stage(Block(act=none), TwoTails()),
        **OUT)
    space = assert_true(net, IMAGES)
    found = depths(space)
    assert found['stage1.blocks'] == ('stage1.blocks.0', 'stage1.blocks.1')
    assert 'stage1' not in sum(found.values(), ())


def test_equal_parts_beside_another_branch_are_no_elements():
    """Position encodings of DaViT: they alone were found, not the block."""

    class Encoding(nn.Module):

        def __init__(self):
            super().__init__()
            self.proj = nn.Conv2d(16, 16, 3, padding=1, groups=16)

        def forward(self, x):
            return x + self.proj(x)

    class Encoded(nn.Module):

        def __init__(self):
            super().__init__()
            self.cpe1, self.cpe2 = Encoding(), Encoding()
            self.mix = conv(16, 16)

        def forward(self, x):
            x = self.cpe1(x)
            x = x + self.mix(x.sigmoid())
            return self.cpe2(x)

    space = traced(*[Encoded() for _ in range(3)])
    assert depths(space) == THREE


def test_another_width_or_resolution_starts_another_stage():
    space = assert_true(
        nn.Sequential(
            conv(3, 16), nn.ReLU(), Block(), Block(), nn.MaxPool2d(2), Block(),
            conv(16, 12), nn.ReLU(), Block(12), nn.Flatten(),
            nn.Linear(12 * 16, 3)), IMAGES)
    assert depths(space) == {
        '[2:3]': ('2', '3'),
        '[5:5]': ('5', ),
        '[8:8]': ('8', )
    }


def test_a_change_of_shape_keeps_the_block():

    class Down(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv, self.short = conv(16, 16), conv(16, 16, 1)

        def forward(self, x):
            return F.relu(self.conv(x) + self.short(x))

    space = traced(Down(), Block(), Block())
    assert depths(space) == {'blocks': ('blocks.1', 'blocks.2')}
    assert 'blocks.0' not in stays(space)  # it is no residual block at all


def test_scaled_additions_are_no_residuals():

    class Half(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv = conv(16, 16)

        def forward(self, x):
            return torch.add(x, self.conv(x), alpha=.5)

    assert not depths(traced(Half(), Half()))


def test_a_removed_block_is_an_identity():
    net = through([Block(), Block()])
    space = trace(net, IMAGES)
    keep = torch.ones(space.layout.E, dtype=torch.bool)
    keep[space.blocks[0].element] = False
    subnet = slice_model(net, space, keep)
    assert isinstance(subnet.blocks[0], nn.Identity)
    assert isinstance(subnet.blocks[1], Block)


def test_depth_need_not_be_searched():
    space = trace(through([Block(), Block()]), IMAGES, depth=False)
    assert not depths(space) and not space.blocks
