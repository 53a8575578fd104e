# Copyright (c) dms_razor contributors. All rights reserved.
"""Experts as elements, their width, and routers that do more than choose."""
import copy

import pytest
import torch
from equality import (assert_counts, closed_form, counted, difference, keep_of,
                      keeps, reasons, unit_table)
from expert_nets import WORDS, mixture

from dms_razor.masking import attach, unmask
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

EXPERTS = 'layers.0.mlp.gate.experts'


def traced(net, **settings):
    return trace(net, WORDS, batch_size=2, **settings)


def test_all_kinds_are_units_and_exports_are_equal():
    """Under hard masks the very network that is cut, and its count."""
    net = mixture()
    space = traced(net)
    assert unit_table(space) == {
        'words': ('width', 2, 1),
        'layers.0.mlp.experts': ('width', 3, 1),
        'layers.1.mlp.experts': ('width', 3, 1),
        EXPERTS: ('experts', 5, 1),
        'layers.1.mlp.gate.experts': ('experts', 5, 1),
        'layers': ('depth', 2, 1),
    }
    assert not space.proof.unproved
    for keep in keeps(space, 4):
        assert difference(net, space, keep, WORDS) < 1e-12
        assert_counts(slice_model(net, space, keep), space, keep, WORDS)


def test_without_the_masks_of_one_kind_the_networks_differ():
    """The comparison above can fail: it is no comparison of zeros."""
    net = mixture()
    space = traced(net)
    keep = keep_of(
        space, lambda unit: unit.size
        if unit.kind == 'depth' else unit.size - 1)
    assert difference(net, space, keep, WORDS) < 1e-12
    space.norm_sites = [x for x in space.norm_sites if x.op != 'softmax']
    assert difference(net, space, keep, WORDS) > 1e-3


def test_one_expert_is_removed_by_hand():
    net = mixture(layers=1)
    space = traced(net)
    keep = torch.ones(space.layout.E, dtype=torch.bool)
    keep[space.layout.slice_of(space.layout.index(EXPERTS)).start + 1] = False
    keep[space.layout.slice_of(
        space.layout.index('layers.0.mlp.experts')).start] = False
    layer, old = slice_model(net, space, keep).layers[0].mlp, net.layers[0].mlp
    rest = [0, 2, 3, 4]
    assert torch.equal(layer.gate.weight, old.gate.weight[rest])
    inner = [*range(8, 24), *range(32, 48)]  # of gates, then of the others
    assert torch.equal(layer.experts.gate_up_proj,
                       old.experts.gate_up_proj[rest][:, inner])
    assert torch.equal(layer.experts.down_proj,
                       old.experts.down_proj[rest][..., 8:])
    assert layer.gate.num_experts == layer.experts.num_experts == 4
    assert layer.experts.intermediate_dim == 16
    assert layer.experts.hidden_dim == layer.gate.hidden_dim == 16


def test_experts_save_parameters_and_only_the_router_saves_macs():
    net = mixture(layers=1)
    space = traced(net)
    keep = keep_of(
        space, lambda unit: unit.least
        if unit.kind == 'experts' else unit.size)
    words, width, inner = 9, 16, 24
    macs, params = closed_form(space, keep)
    full = keep_of(space, lambda unit: unit.size)
    all_macs, all_params = closed_form(space, full)
    # Each word takes two experts, whether there are five or two.
    assert all_macs == words * width * (5 + 2 * 3 * inner + 31)
    assert all_macs - macs == words * width * 3
    assert all_params - params == 3 * (width + 3 * width * inner)
    assert counted(slice_model(net, space, keep), WORDS) == (2 * macs, params)


@pytest.mark.parametrize('masked',
                         ['experts', 'layers.0.mlp.experts', 'words'])
def test_masks_have_the_gradient_of_the_network(masked):
    """Finite differences, between 0 and 1 and at 0 itself."""
    net = mixture(layers=1)
    space = traced(net)
    torch.manual_seed(1)
    masks = (.3 + .6 * torch.rand(space.layout.E)).double()
    name = EXPERTS if masked == 'experts' else masked
    place = space.layout.slice_of(space.layout.index(name))
    masks[place.start] = 0.
    masks[place.stop - 1] = 1e-7
    masks.requires_grad_()
    given = [masks]
    attach(net, space, lambda: given[0])
    weights = torch.randn(2, 9, 31).double()

    def loss():
        return (net(WORDS) * weights).sum()

    found, = torch.autograd.grad(loss(), masks)

    def moved(element, by):
        given[0] = masks.detach().clone()
        given[0][element] += by
        return float(loss())

    with torch.no_grad():
        for element in range(place.start, place.stop):
            # one-sided, of the second order: no mask is negative
            h = 1e-9 if 0 < float(masks[element]) < 1e-3 else 1e-5
            steps = [moved(element, h * n) for n in range(3)]
            slope = (4 * steps[1] - 3 * steps[0] - steps[2]) / (2 * h)
            assert float(found[element]) == pytest.approx(
                slope, rel=1e-4, abs=1e-4), element
    unmask(net)
    assert bool(found[place].abs().gt(1e-6).any())


def test_as_many_as_a_word_takes_have_to_stay():
    space = traced(mixture(top=3))
    assert [u.least for u in space.units if u.kind == 'experts'] == [3, 3]
    for options, message in ((dict(least=1), 'takes 2 of its 5'),
                             (dict(choices=[1, 4]), 'no choice below 2'),
                             (dict(most=1), 'takes 2 of its 5')):
        with pytest.raises(ValueError, match=message):
            traced(mixture(), units={EXPERTS: options})
    space = traced(mixture(), units={EXPERTS: dict(choices=[2, 4])})
    assert space.units[space.layout.index(EXPERTS)].allowed == (2, 4)
    space = traced(mixture(number=6, top=3), units={EXPERTS: dict(divisor=2)})
    assert space.units[space.layout.index(EXPERTS)].allowed == (2, 3)


def test_a_router_that_takes_all_has_no_choice():
    space = traced(mixture(number=2))
    assert not [unit for unit in space.units if unit.kind == 'experts']
    assert 'takes all of its 2 experts' in reasons(space)['layers.0.mlp.gate']


@pytest.mark.parametrize('how, why', [
    ('sigmoid', 'mixes channels: it takes their topk'),
    ('smallest', 'mixes channels: it takes their'),
    ('biased', 'mixes channels: it takes their'),
    ('counted', 'mixes channels: it takes their'),
])
def test_a_router_that_does_more_keeps_its_experts(how, why):
    """Their width and the stream are searched all the same."""
    net = mixture(how=how)
    space = traced(net)
    assert why in reasons(space)['layers.0.mlp.gate']
    kinds = {unit.kind for unit in space.units}
    assert kinds == {'width', 'depth'} and len(space.units) == 4
    for keep in keeps(space, 2):
        assert difference(net, space, keep, WORDS) < 1e-12


def test_scores_that_are_returned_keep_their_experts():
    space = traced(mixture(shows=True))
    assert [u.name for u in space.units
            if u.kind == 'experts'] == ['layers.1.mlp.gate.experts']
    assert reasons(space)['layers.0.mlp.gate'] == 'output of the network'


def test_a_router_that_does_more_in_training_alone():
    net = mixture(how='noisy')
    space = traced(net)
    assert 'layers.0.mlp.gate' in reasons(space)
    assert not any(unit.kind == 'experts' for unit in space.units)


def test_experts_can_be_left_out_of_a_search():
    space = traced(mixture(), experts=False)
    assert {unit.kind for unit in space.units} == {'width', 'depth'}
    with pytest.raises(TypeError, match='whether experts is searched'):
        traced(mixture(), experts='no')


def test_patterns_mean_the_width_of_experts_alone():
    space = traced(mixture(), units={'*.experts': dict(fixed=True)})
    assert set(unit_table(space)) == {'words', 'layers'}
    space = traced(mixture(), units={'layers.?.mlp.experts': dict(divisor=1)})
    steps = {unit.name: unit.step for unit in space.units}
    assert steps['layers.0.mlp.experts'] == 1 and steps['words'] == 8


def test_widths_go_in_steps_that_grouped_products_take():
    """Rows of 16 bytes in the shortest type; what they do not divide goes in
    what does."""
    steps = {
        u.name: (u.size, u.step)
        for u in traced(mixture(width=20, inner=21)).units
    }
    assert steps['words'] == (5, 4) and steps['layers.0.mlp.experts'] == (21,
                                                                          1)


def test_layers_may_share_a_ratio():
    net = mixture()
    space = traced(net, layers='tied')
    assert unit_table(space)['layers.*.mlp.gate.experts'] == ('experts', 5, 2)
    for keep in keeps(space, 2):
        assert difference(net, space, keep, WORDS) < 1e-12


def test_nothing_is_left_on_the_network():
    net = mixture()
    before = [dict(vars(module)) for module in net.modules()]
    expected = copy.deepcopy(net)(WORDS)
    traced(net)
    for module, own in zip(net.modules(), before):
        assert vars(module).keys() == own.keys()
    assert torch.equal(net(WORDS), expected)


def test_what_activations_take_is_known():
    """The second run meets the same operation."""
    space = traced(mixture(), check=False)
    assert space.resource.supernet('memory') > 0
