# Copyright (c) dms_razor contributors. All rights reserved.
"""Weights and inputs of the self-check hide nothing."""
import pytest
import torch
from small_nets import IMAGES, build, chaotic, conv
from torch import nn

from dms_razor.network import run_model
from dms_razor.proof.probe import (Probes, float_type, jittered, spread,
                                   strengths, with_other_weights)
from dms_razor.trace import trace

OUT = dict(out=conv(16, 8))


def plain(middle=lambda net, x: net.out(x), **layers):
    """A small network."""
    return build(middle, **OUT, **layers)


def test_the_first_probe_is_in_double_precision_on_drawn_inputs():
    net = plain()
    probe = next(iter(Probes(net, (torch.zeros(1, 3, 8, 8), ), run_model)))
    assert probe.precision == 'float64' and probe.tolerance.share == 1e-8
    x, = probe.inputs
    assert x.dtype == torch.float64 and len(x.unique()) == x.numel()
    probe.judge(probe.run(probe.network))
    assert probe.telling == [True] and probe.silence == ''
    assert float_type(net) == torch.float32, 'the network is as before'


def test_given_inputs_are_used_as_they_are():
    for probe in Probes(plain(), (IMAGES, ), run_model, (IMAGES + 1, )):
        assert torch.equal(probe.inputs[0], (IMAGES + 1).double())


def test_what_fails_on_drawn_words_is_run_on_the_example():

    class Words(nn.Module):
        """Knows but one kind of segment."""

        def __init__(self):
            super().__init__()
            self.words, self.kinds = nn.Embedding(9, 8), nn.Embedding(1, 8)

        def forward(self, words, kinds):
            return self.words(words) + self.kinds(kinds)

    words, kinds = torch.arange(6)[None], torch.zeros(1, 6).long()
    found = list(Probes(Words(), (words, kinds), run_model))
    assert found and all(not p.inputs[1].any() for p in found)
    probe = found[0]
    probe.judge(probe.run(probe.network))
    assert probe.telling == [True]


@pytest.mark.parametrize('last, words', [
    (lambda x: x * 0, 'all 0'),
    (lambda x: x * float('nan'), 'not finite'),
    (lambda x: torch.ones_like(x), 'do not depend on the input'),
])
def test_why_nothing_tells_is_said(last, words):
    found = iter(Probes(plain(), (IMAGES, ), lambda net, x: last(net(x))))
    probe = next(found)
    probe.judge(probe.run(probe.network))
    assert not any(probe.telling) and words in probe.silence


def test_a_network_that_runs_on_nothing_else():

    def failing(net, x):
        raise ValueError('only on Sundays')

    probes = Probes(plain(), (IMAGES, ), failing)
    assert list(probes) == []
    assert 'ValueError: only on Sundays' in probes.problem


def test_weights_are_of_another_kind_where_the_first_do_not_do():
    old = torch.tensor([0., 30., -2., 1e-6])
    noise = torch.tensor([.1, .5, 1., 0.])
    found = jittered('gamma', old, noise)
    assert found[0] != 0 and abs(found[0]) < .2
    assert found[1:].tolist() == pytest.approx([30., -2.5, .75e-6])
    found = spread('gamma', old, noise)
    assert found.min() >= .5 and found.max() <= 1.5
    assert spread('bias', old, noise).abs().max() <= .1
    many = spread('weight', torch.zeros(64, 64), torch.rand(64, 64))
    assert float(many.var() * 64) == pytest.approx(2, rel=.2)  # as He's


def test_a_copy_with_other_weights():
    net = plain()
    net.head.weight = net.tied = nn.Parameter(torch.zeros(5, 8))
    other = with_other_weights(net, spread)
    assert other.tied is other.head.weight and other.tied.abs().max() > 0
    assert not any(p.requires_grad for p in other.parameters())
    assert not net.tied.any() and net.tied.requires_grad and net.training
    assert not any(m.training for m in other.modules())


def test_how_much_an_element_moves():
    masks = torch.ones(3, dtype=torch.float64, requires_grad=True)
    boxes = masks[0] * torch.tensor([[640., 320.]], dtype=torch.float64)
    scores = masks[1] * torch.tensor([[1e-3, 2e-3]], dtype=torch.float64)
    found = strengths([boxes, scores], [True, True], masks)
    assert .01 < found[0] < 10 and .01 < found[1] < 10 and found[2] == 0
    masks = masks.detach().requires_grad_()
    found = strengths([masks[0] * boxes.detach()], [False], masks)
    assert not found.any()


@pytest.mark.parametrize('steps', [0, 28])
def test_how_far_rounding_goes(steps):
    """2e-16 is doubled 28 times: 6e-8, times what convolutions make of it."""
    net = plain(lambda net, x: net.out(chaotic(x, steps)))
    probe = next(iter(Probes(net, (IMAGES, ), run_model)))
    space = trace(net, IMAGES, check=False)
    masks = torch.ones(space.layout.E, dtype=torch.float64)
    before = [p.clone() for p in probe.network.parameters()]
    found = probe.rounding(space, masks, probe.masked(space, masks))
    low, high = 2.**steps * 1e-16, 2.**steps * 1e-13
    assert low / 10 < found < high
    assert all(map(torch.equal, before, probe.network.parameters()))
