# Copyright (c) dms_razor contributors. All rights reserved.
"""The check that a space passes before it is used finds what rules miss."""
import pytest
import torch
from equality import assert_true, reasons, unit_table
from small_nets import IMAGES, Block, build, chaotic, conv, depths, widths
from torch import nn
from torch.nn import functional as F

from dms_razor import Search
from dms_razor.proof.check import Checker, check_space
from dms_razor.proof.trials import trial
from dms_razor.trace import record, run_model, trace
from dms_razor.tracing.builder import SpaceBuilder
from dms_razor.tracing.options import Options

OUT = dict(out=conv(16, 8))


def unchecked(net, **options):
    """The builder and the space before any check."""
    builder = SpaceBuilder(
        record(net, (IMAGES, ), run_model), Options(**options))
    return builder, builder.build()


def checker(net):
    """A checker of the network on the images."""
    return Checker(record(net, (IMAGES, ), run_model), (IMAGES, ), run_model)


HIDDEN = dict(
    # What no rule can see: the numbers themselves.
    mean=lambda net, x: net.out(net.more(x) / x.shape[1]),
    branch=lambda net, x: net.out(net.more(x) * (2 if x.shape[1] > 8 else 1)),
)


@pytest.mark.parametrize('name', ['mean', 'branch'])
def test_code_that_computes_with_widths_is_found(name):
    net = build(HIDDEN[name], more=conv(16, 16), **OUT)
    _, space = unchecked(net)
    assert 'stem' in widths(space)
    problem = checker(net).first_problem(space)
    assert problem.module is None and 'outputs differ' in problem.reason
    space = assert_true(net, IMAGES)
    assert widths(space) == {'more': (16, 1), 'out': (8, 1)}
    assert 'changes what the network computes' in reasons(space)['stem']


def test_a_true_space_has_no_problem():
    net = build(lambda net, x: net.out(net.block(x)), block=Block(), **OUT)
    builder, space = unchecked(net)
    assert checker(net).first_problem(space) is None
    assert check_space(net, (IMAGES, ), run_model, builder, space) is space


def test_a_wrong_index_is_found():
    # One consumer of the stem has its channels in another order.
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 16), **OUT)
    builder, space = unchecked(net)
    axis = builder.facts.axes['out.weight', 1]
    axis.labels = axis.labels.flip(0)
    problem = checker(net).first_problem(builder.build())
    assert 'outputs differ' in problem.reason


def test_a_forgotten_tensor_is_found():
    net = build(
        lambda net, x: net.out(net.norm(x)), norm=nn.BatchNorm2d(16), **OUT)
    builder, space = unchecked(net)
    del builder.facts.axes['norm.running_var', 0]
    problem = checker(net).first_problem(builder.build())
    assert problem.module == 'norm'
    assert 'running_var should contain' in problem.reason


@pytest.mark.parametrize('scale', [0., 1e-7])
def test_what_a_tiny_scale_hides_is_found(scale):

    class Hidden(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv = conv(16, 16)
            self.gamma = nn.Parameter(torch.full((1, 16, 1, 1), scale))

        def forward(self, x):
            return x + self.gamma * (self.conv(x) / x.shape[1])

    net = build(lambda net, x: net.out(net.hidden(x)), hidden=Hidden(), **OUT)
    assert widths(trace(net, IMAGES)) == {'out': (8, 1)}


def test_what_fades_away_through_many_layers_is_found():
    # With PyTorch's initialisation nothing of the input arrives.
    layers = [nn.Sequential(conv(16, 16), nn.ReLU()) for _ in range(24)]
    net = build(
        lambda net, x: net.out(net.deep(net.more(x) * x.shape[1])),
        more=conv(16, 16),
        deep=nn.Sequential(*layers),
        **OUT)
    assert 'stem' not in widths(trace(net, IMAGES, depth=False))


def test_random_numbers_are_the_same_in_both_networks():
    net = build(lambda net, x: net.out(x + torch.rand(len(x), 1, 8, 8)), **OUT)
    assert_true(net, IMAGES)


def test_decisions_between_neighbours_are_the_same_in_both_networks():
    # A sum in another order would often pick another of equal candidates.
    def middle(net, x):
        x = net.more(x)
        score = (x.mean((2, 3), keepdim=True) * 1e6).sigmoid().round()
        return net.out(x * score)

    net = build(middle, more=conv(16, 16), **OUT)
    space = trace(net, IMAGES)
    assert set(widths(space)) == {'stem', 'more', 'out'}


class Single(nn.Module):
    """Casts to single precision, as mixed-precision code does."""

    def __init__(self, cast=lambda x: x.float()):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 16, 1, 1))
        self.cast = cast

    def forward(self, x):
        return F.conv2d(self.cast(x), self.cast(self.weight))


def test_networks_that_cast_are_compared_in_double_precision_all_the_same():
    net = build(lambda net, x: net.out(x), out=Single())
    space = assert_true(net, IMAGES)
    assert set(unit_table(space)) == {'stem', 'out'}
    assert space.proof.precision == 'float64' and space.proof.error < 1e-12


def test_where_double_precision_is_impossible_that_is_said():

    class Strict(nn.Module):
        """As an operator that is compiled for one precision."""

        def forward(self, x):
            if x.dtype != torch.float32:
                raise TypeError('float32 expected')
            return x

    net = build(lambda net, x: net.out(net.strict(x)), strict=Strict(), **OUT)
    space = assert_true(net, IMAGES)
    assert set(unit_table(space)) == {'stem', 'out'}
    assert space.proof.precision == 'float32 (TypeError: float32 expected)'
    assert 1e-9 < space.proof.error < 1e-4
    assert 'in float32 (TypeError: float32 expected)' in space.proof.text()


def test_half_precision():
    net = build(lambda net, x: net.out(x), **OUT).bfloat16()
    space = trace(net, IMAGES.bfloat16())
    assert set(widths(space)) == {'stem', 'out'}


def test_outputs_that_are_not_finite_are_compared_where_they_are():
    net = build(lambda net, x: net.out(x), **OUT)
    space = trace(net, IMAGES, forward=lambda net, x: net(x).relu().log())
    assert set(widths(space)) == {'stem', 'out'}
    with pytest.raises(ValueError, match='the outputs are not finite'):
        trace(
            net,
            IMAGES,
            forward=lambda net, x: -net(x).square().log().exp().sub(1e9).sqrt(
            ))


def test_a_network_that_does_not_compute_the_same_twice():

    class Moody(nn.Module):
        calls = 0

        def forward(self, x):
            Moody.calls += 1
            return x * Moody.calls

    net = build(lambda net, x: net.out(net.moody(x)), moody=Moody(), **OUT)
    with pytest.raises(RuntimeError) as error:
        trace(net, IMAGES)
    message = str(error.value)
    assert 'does not compute the same twice' in message
    assert 'Make it repeatable' in message
    assert set(widths(trace(net, IMAGES, check=False))) == {'stem', 'out'}


def test_the_network_itself_is_not_pruned_or_masked():
    net = build(lambda net, x: net.out(x), **OUT)
    found = checker(net)
    assert found.probe is not net
    before = [p.clone() for p in net.parameters()]
    found.first_problem(unchecked(net)[1])
    assert all(map(torch.equal, before, net.parameters()))
    assert type(net.out) is nn.Conv2d


def test_trials_are_unlike():
    net = build(
        lambda net, x: net.out(net.grouped(net.blocks(x))),
        blocks=nn.Sequential(Block(), Block(), Block()),
        grouped=conv(16, 16, groups=4),
        out=conv(16, 8))
    _, space = unchecked(net, units={'grouped': dict(least=2, most=3)})
    depth = space.layout.depth_elements
    all_blocks, smallest, mixed = (trial(space, n) for n in range(3))
    assert all_blocks[depth].all() and not smallest[depth].any()
    for keep in (all_blocks, smallest, mixed):
        for number, unit in enumerate(space.units):
            rows = keep[space.layout.slice_of(number)].view(unit.groups, -1)
            kept, = rows.sum(1).unique().tolist()
            assert unit.least <= kept <= unit.most
            if keep is smallest:
                assert kept == unit.least
            elif unit.kind == 'width':
                assert kept < unit.size


def test_subnets_that_coincide_are_each_compared_with_themselves(monkeypatch):
    """The first one came again behind another, and was given its outputs."""
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 16), **OUT)
    _, space = unchecked(net)
    first, other = trial(space, 0), trial(space, 1)
    assert not torch.equal(first, other)
    monkeypatch.setattr('dms_razor.proof.check.trials',
                        lambda *args: [first, other, first])
    assert checker(net).first_problem(space) is None


def test_a_check_can_be_left_out():
    net = build(HIDDEN['mean'], more=conv(16, 16), **OUT)
    assert 'stem' in widths(trace(net, IMAGES, check=False))


def test_depth_alone_is_checked_too():

    class Counting(nn.Module):
        """Scales by how many of its blocks are there."""

        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x):
            there = sum(isinstance(b, Block) for b in self.blocks)
            for block in self.blocks:
                x = block(x)
            return x * there

    net = build(lambda net, x: net.out(net.stage(x)), stage=Counting(), **OUT)
    space = assert_true(net, IMAGES)
    assert not depths(space)
    assert 'removing blocks fails' in reasons(space)['stage.blocks.0']


class ByWidth(nn.Module):
    """Divides by a width, as attention does, and has no bias."""

    def __init__(self):
        super().__init__()
        self.more, self.last = (conv(16, 16, bias=False) for _ in range(2))

    def forward(self, x):
        x = F.relu(self.more(x))
        return F.relu(self.last(x / x.shape[1]))


@pytest.mark.parametrize(
    'example',
    [IMAGES, torch.zeros(2, 3, 8, 8),
     torch.ones(2, 3, 8, 8)],
    ids=['images', 'zeros', 'ones'])
def test_an_example_that_shows_nothing_is_no_proof(example):
    net = build(lambda net, x: net.out(net.wide(x)), wide=ByWidth(), **OUT)
    for name in ('stem', 'out', 'head'):
        getattr(net, name).bias = None
    space = trace(net, example)
    assert set(widths(space)) == {'stem', 'wide.last', 'out'}
    assert 'changes what the network' in reasons(space)['wide.more']
    assert_true(net, IMAGES)


def test_a_parameter_that_must_lie_in_a_range():
    net = build(
        lambda net, x: net.out(net.wide(x)) * torch.log(net.heat - 1.6),
        wide=ByWidth(),
        heat=nn.Parameter(torch.full((1, ), 30.)),
        **OUT)
    assert 'wide.more' not in widths(trace(net, IMAGES))


@pytest.mark.parametrize(
    'join', [
        lambda boxes, scores: torch.cat([boxes, scores], 1),
        lambda boxes, scores: (boxes, scores)
    ],
    ids=['one tensor', 'two'])
def test_small_outputs_beside_large_ones(join):

    class Detector(nn.Module):

        def __init__(self):
            super().__init__()
            self.wide, self.box = ByWidth(), conv(16, 4)
            self.score = conv(16, 3)

        def forward(self, x):
            scores = self.score(self.wide(x)).sigmoid()
            return join(self.box(x).exp() * 640, scores)

    net = nn.Sequential(conv(3, 16), nn.ReLU(), Detector())
    space = trace(net, IMAGES)
    assert set(widths(space)) == {'0', '2.wide.last'}
    assert space.proof.units == 2 and space.proof.error < 1e-10


def test_channels_that_reach_no_output_stay_and_are_named():
    net = build(
        lambda net, x: net.out(x) + 0 * net.lost(net.more(x)),
        more=conv(16, 12),
        lost=conv(12, 8),
        **OUT)
    space = trace(net, IMAGES)
    assert set(widths(space)) == {'stem', 'out'}
    why = 'the self-check cannot prove it: pruning it changes nothing'
    assert why in reasons(space)['more']
    assert list(space.proof.unproved) == ['more']
    assert '1 could not be proved and stay' in space.proof.text()


def test_inputs_that_are_given_are_used():
    """A network that is silent on all but one kind of input."""
    net = build(
        lambda net, x: net.out(x) * (IMAGES.abs().amax() < 50 < net.peak),
        **OUT)
    net.register_forward_pre_hook(
        lambda net, x: setattr(net, 'peak', x[0].abs().amax()))
    with pytest.raises(
            ValueError, match='the outputs are not|do not depend'
            '|all 0') as error:
        trace(net, IMAGES)
    assert 'Give probe_inputs=' in str(error.value)
    space = trace(net, IMAGES, probe_inputs=IMAGES * 100)
    assert set(widths(space)) == {'stem', 'out'}
    assert space.proof.text().startswith('2 units on Net, 3 subnets in flo')


def test_a_prediction_without_gradients_is_proved_all_the_same():
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 16), **OUT)
    ran = []
    net.register_forward_hook(lambda *_: ran.append(1))
    for forward in (torch.no_grad()(run_model),
                    torch.inference_mode()(run_model)):
        space = trace(net, IMAGES, forward=forward)
        assert space.proof.units == len(widths(space)) == 3


def test_what_was_proved_is_told(tmp_path):
    net = build(lambda net, x: net.out(x), **OUT)
    search = Search(net, IMAGES, '60%', total_steps=2)
    told = search.space.proof.text()
    assert told.startswith('2 units on Net, 3 subnets in float64: ')
    report = search.preflight()
    assert told in report.text() and report.to_dict()['proof'] == told
    exported = search.export(tmp_path / 'subnet', picture=False).report
    assert f'Self-check: {told}.' in exported.to_markdown()
    unproved = Search(
        build(lambda net, x: net.out(x), **OUT), IMAGES, '60%', check=False)
    assert unproved.preflight().proof == 'none'


@pytest.mark.parametrize('steps, error', [(0, 0), (28, 0), (0, 1e-6),
                                          (28, 1e-2)])
def test_what_rounding_explains_is_no_error_and_nothing_else(steps, error):
    """A map that doubles every difference, 28 times."""

    def forward(net, x):
        x = chaotic(net.more(x), steps) if steps else net.more(x)
        return net.out(x * (1 + error * x.shape[1]))

    found = widths(trace(build(forward, more=conv(16, 16), **OUT), IMAGES))
    assert 'stem' in found and ('more' in found) == (not error)
