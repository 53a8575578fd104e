# Copyright (c) dms_razor contributors. All rights reserved.
"""Steps of a device whose time is a formula of the width."""
import json

import pytest
import torch

from dms_razor.core import Layout, Unit
from dms_razor.core.latency import LatencyError, checksum
from dms_razor.core.steps import (costly_widths, divisor_of, probed_widths,
                                  resolved, resolved_divisor, rounded, saved)

TABLE = dict(
    format='dms_razor.latency',
    layers={},
    parts={},
    grid=[1.],
    input=[],
    coefficients=dict(base=0., scale=0., rest=0., traffic=0.))
SETTING = dict(
    backend='torch', threads=1, precision='fp32', processor='x', versions={})


def with_steps(step, noise=0., device='cpu', layers=3):
    """Layers that take the time of the next multiple, and some noise."""
    generator = torch.Generator().manual_seed(0)

    def ms(width):
        drawn = float(torch.rand((), generator=generator)) - .5
        return (2. + -(-width // step) * step) * (1 + noise * drawn)

    return dict(
        TABLE,
        setting=dict(SETTING, device=device),
        steps={
            str(n): {
                str(w): ms(w)
                for w in probed_widths(64 << n)
            }
            for n in range(layers)
        })


def test_widths_lie_in_the_layer():
    assert probed_widths(31) == []
    assert probed_widths(32)[0] == 16 and probed_widths(32)[-1] == 32
    for full in (64, 65, 100, 511):
        widths = probed_widths(full)
        assert widths[0] >= 32 and full - 32 < widths[-1] <= full
        assert widths[-1] % 32 == widths[0] % 32 == 0


def test_by_hand():
    """Of the 1 and .5 ms of the lines to 8 and 16, .3 and .1 are saved."""
    times = {8: 1., 9: 9., 12: 2.7, 16: 3., 20: 3.9, 24: 4.}
    assert saved(times, 8) == pytest.approx((.3 + .1) / (1. + .5))
    assert saved({8: 1., 12: 2.}, 8) is None
    assert saved({8: 1., 12: 1., 16: 1.}, 8) is None
    assert saved({8: 1., 9: 1.2, 10: 3.}, 8) is None


@pytest.mark.parametrize('deep, step', [(True, 4), (False, 1)])
def test_depthwise_kernels_of_their_own(deep, step):
    """Widths that are no multiple of 4 take five times as long there, and
    are the minority of the layers."""
    table = with_steps(1)
    table['steps'][f'a depthwise={deep} layer'] = {
        str(w): w * (1. if w % 4 == 0 else 5.)
        for w in probed_widths(512)
    }
    assert divisor_of(table)[0] == step


@pytest.mark.parametrize('noise', [0., .01])
@pytest.mark.parametrize('step', [1, 2, 4, 8, 16, 32])
def test_steps_are_found(step, noise):
    found, why = divisor_of(with_steps(step, noise))
    assert found == step
    assert ('no steps show' if step == 1 else 'a step that 3 layers') in why


def layout_of(**options):
    return Layout([Unit('a', 'width', 64, **options), Unit('b', 'depth', 3)])


def test_free_widths_are_told_what_they_cost():
    assert costly_widths(with_steps(1), layout_of()) is None
    assert costly_widths(with_steps(8, layers=0), layout_of()) is None
    table = with_steps(8)
    found = costly_widths(table, layout_of())
    assert 'in steps of 8' in found and '"a" may have any: ' in found
    assert "divisor='auto'" in found
    assert costly_widths(table, layout_of(step=8)) is None
    assert costly_widths(table,
                         layout_of(choices=tuple(range(8, 65, 8)))) is None
    for slow, told in ((7., True), (2.5, False)):
        table['steps']['a depthwise=True layer'] = {
            str(w): (2. if w % 4 == 0 else slow) + w / 1e5
            for w in probed_widths(512)
        }
        found = costly_widths(table, layout_of())
        assert ('up to 3.5 times as long' in found) is told


def test_advice_where_nothing_was_measured():
    assert divisor_of(with_steps(4, layers=0))[0] == 8
    assert divisor_of(with_steps(4, device='cuda', layers=0))[0] == 8
    with pytest.raises(LatencyError, match="'npu', and there is no advice"):
        divisor_of(with_steps(4, device='npu', layers=0))


def test_auto_in_the_options_of_units(tmp_path):
    content = with_steps(16)
    content['checksum'] = checksum(content)
    path = tmp_path / 'table.json'
    path.write_text(json.dumps(content))
    units = {'*': dict(divisor='auto', least=2), 'a': dict(divisor=4)}
    assert resolved(dict(units=units, depth=True), path) == dict(
        units={
            '*': dict(divisor=16, least=2),
            'a': dict(divisor=4)
        },
        depth=True)
    assert units['*']['divisor'] == 'auto'
    other = dict(units={'a': dict(divisor=4)})
    assert resolved(other, None) is other and resolved({}, None) == {}
    with pytest.raises(LatencyError, match="divisor='auto' is worked out"):
        resolved(dict(units=units), None)


def test_a_number_is_a_number():
    assert resolved_divisor(4, None)[0] == 4
    for wrong in (0, 2.5, True, 'some'):
        with pytest.raises(ValueError, match='divisor=.*positive whole'):
            resolved_divisor(wrong, None)


def test_rounded_counts():
    layout = rounded(
        Layout([
            Unit('wide', 'width', 20, least=3),
            Unit('step', 'width', 6, step=4),
            Unit('small', 'width', 4),
            Unit('choice', 'width', 20, choices=(5, 6, 16)),
            Unit('none', 'width', 20, choices=(5, 7)),
            Unit('heads', 'heads', 12),
            Unit('d', 'depth', 3)
        ]), 8)
    assert [unit.allowed for unit in layout.units] == [(8, 16, 20), (2, 4, 6),
                                                       (1, 2, 3, 4), (16, ),
                                                       (5, 7),
                                                       tuple(range(1, 13)),
                                                       (0, 1, 2, 3)]
