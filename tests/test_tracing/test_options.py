# Copyright (c) dms_razor contributors. All rights reserved.
"""What users say about units by name pattern."""
import pytest
import torch
from equality import assert_true, reasons
from small_nets import IMAGES, Block, build, conv, depths, widths
from torch import nn

from dms_razor.trace import trace
from dms_razor.tracing.options import at_least, check_options, make_unit


def net():
    """Widths stem, a (4 groups), b, blocks' inner ones; one stage."""
    return build(
        lambda net, x: net.out(net.b(net.a(net.blocks(x)))),
        blocks=nn.Sequential(Block(), Block(), Block()),
        a=conv(16, 24, groups=4),
        b=conv(24, 32),
        out=conv(32, 8))


def units(**options):
    """Name -> unit under these options."""
    return {u.name: u for u in trace(net(), IMAGES, units=options).units}


def test_without_options():
    space = assert_true(net(), IMAGES)
    assert widths(space) == {
        'stem': (4, 4),
        'blocks.0.conv1': (16, 1),
        'blocks.1.conv1': (16, 1),
        'blocks.2.conv1': (16, 1),
        'a': (6, 4),
        'b': (32, 1),
        'out': (8, 1)
    }
    assert len(depths(space)['blocks']) == 3


def test_fixed():
    space = assert_true(
        net(),
        IMAGES,
        units={
            'b': dict(fixed=True),
            'blocks.*': dict(fixed=True)
        })
    assert set(widths(space)) == {'a', 'out'}
    assert not depths(space)
    found = reasons(space)
    names = ('b', 'stem', 'blocks.0.conv1', 'blocks.1', 'blocks.1.conv2')
    assert {found[name] for name in names} == {'declared fixed'}


def test_a_unit_is_matched_by_any_of_its_layers():
    # The stem's channels are also those that the blocks' conv2 make.
    assert 'stem' not in units(**{'blocks.1.conv2': dict(fixed=True)})


def test_fixed_on_what_stays_anyway_is_no_error():
    space = trace(net(), IMAGES, units={'head': dict(fixed=True)})
    assert reasons(space)['head'] == 'output of the network'


def test_divisor():
    space = assert_true(
        net(),
        IMAGES,
        units={
            'b': dict(divisor=8),
            '*.conv1': dict(divisor=4),
            'a': dict(divisor=3)
        })
    found = {u.name: u for u in space.units}
    assert (found['b'].size, found['b'].step) == (4, 8)
    assert (found['a'].size, found['a'].step, found['a'].groups) == (2, 3, 4)
    assert found['b'].channels == 32 and found['a'].channels == 24
    index = space.slice_sites['b.weight'][0].index
    first = space.layout.slice_of(space.layout.index('b')).start
    assert index.tolist() == [first + i // 8 for i in range(32)]


def test_blocks_have_no_divisor():
    plain = trace(net(), IMAGES)
    stage = next(u.name for u in plain.units if u.kind == 'depth')
    with pytest.raises(ValueError, match='choices'):
        trace(net(), IMAGES, units={stage: dict(divisor=2)})
    # A pattern that means channels too says nothing about blocks.
    trace(net(), IMAGES, units={'*': dict(divisor=2)})


def test_a_divisor_that_does_not_fit_fixes_the_unit():
    space = trace(net(), IMAGES, units={'[ab]': dict(divisor=5)})
    assert not {'a', 'b'} & set(widths(space))
    assert reasons(space)['b'] == (
        'its 32 channels are no multiple of the step 5')
    space = trace(net(), IMAGES, units={'b': dict(divisor=32)})
    assert 'go together' in reasons(space)['b']


def test_bounds():
    found = units(
        **{
            'b': dict(least=8, most=24, divisor=4),
            'a': dict(least=2),
            'blocks': dict(least=1, most=2)
        })
    assert (found['b'].least, found['b'].most) == (2, 6)
    assert (found['a'].least, found['a'].most) == (2, 6)
    assert (found['blocks'].least, found['blocks'].most) == (1, 2)


def test_later_patterns_win():
    found = units(**{
        '*': dict(divisor=2, least=2),
        'b': dict(divisor=8, least=8)
    })
    assert (found['b'].step, found['b'].least) == (8, 1)
    assert (found['out'].step, found['out'].least) == (2, 1)


def test_names_with_brackets_are_matched_letter_by_letter():
    none = nn.Identity()
    net = nn.Sequential(
        conv(3, 16), Block(act=none), conv(16, 8), Block(8, act=none))
    assert '[1:1]' in depths(trace(net, IMAGES))
    space = trace(net, IMAGES, units={'[1:1]': dict(fixed=True)})
    assert reasons(space)['1'] == 'declared fixed'


@pytest.mark.parametrize('name', ['c', 'a.*', 'layer1'])
def test_a_pattern_that_matches_nothing(name):
    for options in (dict(fixed=True), dict(divisor=2)):
        with pytest.raises(ValueError) as error:
            trace(net(), IMAGES, units={name: options})
        assert f'"{name}" matches nothing' in str(error.value)
        assert 'blocks.0.conv1, ' in str(error.value)
        assert 'Correct the pattern' in str(error.value)


def test_a_pattern_for_what_stays_can_only_fix():
    with pytest.raises(ValueError, match='"head" matches nothing that can'):
        trace(net(), IMAGES, units=dict(head=dict(divisor=5)))


@pytest.mark.parametrize('options,message', [
    (dict(b=dict(step=8)), r'units\["b"\] has the unknown option "step"'),
    (dict(b=dict(divisor=0)), 'divisor=0 is no positive whole number'),
    (dict(b=dict(divisor=2.5)), 'divisor=2.5 is no positive whole number'),
    (dict(b=dict(divisor=True)), 'divisor=True is no positive whole number'),
    (dict(b=dict(least=-1)), 'least=-1 is no positive whole number'),
    (dict(b=dict(most='all')), "most='all' is no positive whole number"),
    (dict(b=dict(fixed=1)), 'fixed=1 is neither True nor False'),
    (dict(b='fixed'), r'units\["b"\] is \'fixed\'.* a dict'),
    (dict(b=dict(divisor=8, least=12)), 'least=12 channels are no multiple'),
    (dict(b=dict(least=40)), 'least=40 and most=32 do not fit'),
    (dict(b=dict(least=0)), 'least=0 and most=32 do not fit'),
    (dict(blocks=dict(most=4)), 'most=4 do not fit'),
    (dict(b=dict(least=20, most=10)), 'least=20 and most=10 do not fit'),
])
def test_options_that_make_no_sense(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        trace(net(), IMAGES, units=options)


def test_options_that_make_sense_are_returned():
    options = {'a.*': dict(fixed=False, least=0)}
    assert check_options(options) == options


def test_make_unit_counts_bounds_in_elements():
    unit = make_unit('x', 'width', 32, 2, 8, dict(least=8, most=16), ('x', ))
    assert (unit.size, unit.groups, unit.step) == (4, 2, 8)
    assert (unit.least, unit.most) == (1, 2)


def test_bounds_of_what_a_network_takes_some_of():
    assert at_least('x', dict(fixed=False), 3, 8, 1)['least'] == 3
    assert at_least('x', dict(divisor=2), 3, 8, 2)['least'] == 4
    assert at_least('x', dict(), 1, 8, 1) == {}
    given = dict(least=4, most=6)
    assert at_least('x', given, 3, 8, 1) == given
    for wrong in (dict(least=2), dict(most=2), dict(choices=[2, 8])):
        with pytest.raises(ValueError, match='unit "x": the network takes 3'):
            at_least('x', wrong, 3, 8, 1)


def test_widths_or_depths_alone():
    space = trace(net(), IMAGES, width=False)
    assert not widths(space) and list(depths(space)) == ['blocks']
    assert reasons(space)['b'] == 'width is not searched'
    space = trace(net(), IMAGES, depth=False)
    assert widths(space) and not depths(space)
    assert_true(net(), IMAGES, width=False)


def test_neither_widths_nor_depths():
    with pytest.raises(ValueError, match='nothing can be pruned'):
        trace(net(), IMAGES, width=False, depth=False)


def test_nothing_can_be_pruned():
    with pytest.raises(ValueError) as error:
        trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), IMAGES)
    assert '1: output of the network' in str(error.value)
    with pytest.raises(ValueError, match='no convolution or linear layer'):
        trace(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), IMAGES)


@pytest.mark.parametrize('inputs', [
    torch.randn(1, 4, 8, 8),
    torch.randn(1, 3),
    (IMAGES, IMAGES),
])
def test_a_forward_that_fails(inputs):
    with pytest.raises(RuntimeError) as error:
        trace(net(), inputs)
    message = str(error.value)
    assert message.startswith('the forward of Net fails on the example input')
    assert str(
        tuple(IMAGES.shape if isinstance(inputs, tuple) else inputs.shape)
    ) in message
    assert ('give what the forward takes alone' if isinstance(inputs, tuple)
            else 'Give an example input of the shape') in message
