# Copyright (c) dms_razor contributors. All rights reserved.
"""One table of operations, and what is read from it."""
import pytest
import torch
from equality import reasons
from small_nets import IMAGES, Net, build, check, conv, depths
from torch import nn
from torch.nn import functional as F

from dms_razor.trace import trace
from dms_razor.tracing import RULES, register_rule
from dms_razor.tracing.rules import table

ONES = torch.ones(16)
#: Operations that take more than one tensor, or are called in other ways.
CALLS = {
    'prelu': lambda x: F.prelu(x, ONES),
    'threshold': lambda x: F.threshold(x, .1, .2),
    'clamp': lambda x: x.clamp(-1, 1),
    'clamp_min': lambda x: x.clamp_min(-1.),
    'clamp_max': lambda x: x.clamp_max(1.),
    'copy': lambda x: x.copy_(ONES[0]),
    'zero': lambda x: x.zero_(),
    'fill': lambda x: x.fill_(1.),
    'full_like': lambda x: torch.full_like(x, 2.),
    'bernoulli': lambda x: torch.bernoulli(x, .5),
    'maximum': lambda x: torch.maximum(x, ONES[:, None, None]),
    'minimum': lambda x: torch.minimum(x, ONES[:, None, None]),
    'atan2': lambda x: torch.atan2(x, ONES[:, None, None]),
    'copysign': lambda x: x.copysign(1.),
    'where': lambda x: torch.where(ONES[:, None, None] > 0, x, ONES[0]),
    'lerp': lambda x: x.lerp(ONES[:, None, None], .5),
    'addcmul': lambda x: x.addcmul(ONES[:, None, None], ONES[:, None, None]),
    'addcdiv': lambda x: x.addcdiv(ONES[:, None, None], ONES[:, None, None]),
    'masked_fill': lambda x: x.masked_fill(ONES[:, None, None] > 2, 0.),
    'batch_norm': nn.BatchNorm2d(16),
    'layer_norm': nn.LayerNorm(8),
    'group_norm': nn.GroupNorm(2, 16),
    'rms_norm': lambda x: F.rms_norm(x, (8, )),
    'local_response_norm': lambda x: F.local_response_norm(x, 3),
}
CALLS.update({
    name: lambda x, name=name: getattr(F, name)(x, 1)
    for name in ('softmax', 'log_softmax', 'softmin')
})
CALLS.update({
    name: lambda x, name=name: getattr(torch, name)(x, 2.)
    for name in ('add', 'sub', 'mul', 'div', 'pow', 'fmod', 'remainder',
                 'floor_divide')
})
CALLS.update({
    name: lambda x, name=name: getattr(F, name)(x, training=True)
    for name in ('dropout', 'dropout1d', 'dropout2d', 'dropout3d',
                 'alpha_dropout', 'feature_alpha_dropout')
})
CALLS['dropout1d'] = CALLS['dropout3d'] = None  # not of images
#: No features come out of these, so no block ends in them.
NO_FEATURES = set(
    'isnan isinf logical_not bitwise_not eq ne lt le gt ge logical_and '
    'logical_or logical_xor bitwise_and bitwise_or max_binary'.split())
#: These are not called in eval mode, on images or on the CPU.
ELSEWHERE = {'dropout1d', 'dropout3d', 'sync_batch_norm', 'feature_dropout'}
BEHIND = [
    name for name in table.those('pointwise', 'binary', 'norm')
    if name not in NO_FEATURES | ELSEWHERE
]


class Block(nn.Module):
    """An operation behind the addition."""

    def __init__(self, act):
        super().__init__()
        self.conv, self.act = conv(16, 16), act

    def forward(self, x):
        return self.act(x + self.conv(x))


@pytest.mark.parametrize('name', BEHIND)
def test_whatever_is_behind_an_addition_is_understood_or_told(name):
    act = CALLS.get(name) or getattr(F, name, None) or getattr(torch, name)
    blocks = nn.Sequential(*[Block(act) for _ in range(3)])
    net = build(
        lambda net, x: net.out(net.blocks(x)), blocks=blocks, out=conv(16, 8))
    space = trace(net, IMAGES, check=False)
    removable = {block.path for block in space.blocks}
    told = reasons(space)
    for block in ('blocks.0', 'blocks.1', 'blocks.2'):
        reason = f'{name} after the addition would act on the input again'
        assert block in removable or reason in told[block]
    # the first block reads the ReLU of the stem
    first = () if name == 'relu' else ('blocks.0', )
    idempotent = 'idempotent' in table.PROPERTIES[name]
    # Of the others the branch goes alone.
    whole = {block.path for block in space.blocks if not block.branch}
    assert bool(whole) == idempotent
    assert whole.isdisjoint(first)


def test_a_constant_added_behind_the_branch_stays_without_it():

    class Shifted(Block):

        def forward(self, x):
            return x + self.conv(x) + .5

    space = trace(
        build(
            lambda net, x: net.out(net.blocks(x)),
            blocks=nn.Sequential(Shifted(None), Shifted(None)),
            out=conv(16, 8)), IMAGES)
    assert depths(space) == {'blocks': ('blocks.0', 'blocks.1')}
    assert all(block.branch for block in space.blocks)


def test_every_word_of_the_table_has_a_meaning():
    words = frozenset().union(*table.PROPERTIES.values())
    assert all(f'| {word} |' in table.__doc__ for word in words)
    assert table.has('relu', 'norm', 'idempotent')
    assert not table.has('no_such_operation', *words)
    assert set(table.those('pointwise', 'binary')) <= set(RULES)
    assert not set(table.ALIASES) & set(RULES)


@pytest.fixture
def own_operation():
    """An operation of one's own, known for the time of a test."""
    before = dict(RULES), dict(table.PROPERTIES)
    yield
    for known, old in zip((RULES, table.PROPERTIES), before):
        known.clear()
        known.update(old)


def test_properties_of_an_operation_of_ones_own(own_operation):
    blocks = nn.Sequential(*[Block(torch.fft.fftshift) for _ in range(3)])

    def space():
        return trace(
            Net(lambda net, x: net.out(net.blocks(x)),
                blocks=blocks,
                out=conv(16, 8)), IMAGES)

    assert 'blocks.0' not in reasons(space())

    @register_rule('fft_fftshift', does=('pointwise', ))
    def pass_on(recorder, call):
        return [recorder.labels_of(call.tensors[0])]

    assert depths(space()) == {'blocks': ('blocks.0', 'blocks.1', 'blocks.2')}
    with pytest.raises(ValueError, match='"pointwize" is not known, use some'):
        register_rule('fft_fftshift', does=['pointwize'])


def test_an_operation_without_a_rule_is_counted():
    """It runs again for that, and not on what it changed."""
    space = check(
        lambda net, x: net.out(x + torch.cov(x[0, 0]).sum() + torch.ones(1, 8).
                               addmm_(net.one, net.table).sum()), {'out': 8}, {
                                   'stem': 'picks some of them by number',
                                   '': 'uses cov'
                               },
        out=conv(16, 8),
        one=nn.Parameter(torch.ones(1, 4)),
        table=nn.Parameter(torch.ones(4, 8)))
    macs = [c.coef for c in space.resource.costs if c.op in ('cov', 'addmm')]
    assert macs == [8 * 8 * 8 / 2, 4 * 8 / 2]
