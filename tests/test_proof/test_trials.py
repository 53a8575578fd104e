# Copyright (c) dms_razor contributors. All rights reserved.
"""Subnets in which what a block leaves to others is missed."""
from dataclasses import replace

import torch
from small_nets import Block, HandingOn, build, conv
from torch import nn
from torch.nn import functional as F

from dms_razor.proof.trials import rounds, trial, trials
from dms_razor.trace import record, run_model, trace
from dms_razor.tracing.branches import BranchFinder
from dms_razor.tracing.builder import SpaceBuilder
from dms_razor.tracing.options import Options


class Smooth(Block):
    """A block of another kind."""

    def forward(self, x):
        return self.act(x + self.norm(self.conv2(self.conv1(x).tanh())))


goes = BranchFinder._goes


def forgetful(finder, call, cone, stop):
    """A finder that does not see what a module hands on."""
    return goes(finder, replace(call, outputs=call.outputs[:1]), cone, stop)


def test_the_proof_notices_what_a_block_hands_on(monkeypatch):
    """No block of a random or of the smallest subnet need show it."""
    monkeypatch.setattr(BranchFinder, '_goes', forgetful)
    net, x = HandingOn(False), torch.randn(1, 5)
    names = {block.path for block in trace(net, x, check=False).blocks}
    assert 'parts.1' in names
    space = trace(net, x)
    stays = {stay.module: stay.reason for stay in space.full_width}
    assert 'parts.1' not in {block.path for block in space.blocks}
    assert 'removing blocks fails' in stays['parts.1']


def test_one_block_of_each_kind_goes_alone():
    """Three of four are of one kind, and each stage is a question."""
    net = build(
        lambda net, x: net.out(net.second(F.relu(net.down(net.first(x))))),
        first=nn.Sequential(Block(), Smooth(), Block(), Block()),
        down=conv(16, 16, stride=2),
        second=nn.Sequential(Block(), Block()),
        out=conv(16, 8))
    images = torch.randn(1, 3, 8, 8)
    recorder = record(net, (images, ), run_model)
    space = SpaceBuilder(recorder, Options()).build()
    element = {block.path: block.element for block in space.blocks}
    assert rounds(space,
                  recorder) == [[element['first.0'], element['second.0']],
                                [element['first.1']]]
    _, mixed, kept, smallest = trials(space, recorder, training=False)
    assert torch.equal(smallest, trial(space, 1))
    assert not kept[element['first.1']] and kept.sum() == len(kept) - 1
    assert [path for path, e in element.items() if not mixed[e]] == \
        ['first.0', 'second.0']
    held = SpaceBuilder(recorder,
                        Options(units=dict(first=dict(fixed=True)))).build()
    assert rounds(held, recorder) == [[held.blocks[0].element]]
    assert trial(space, 0)[[*element.values()]].all()


def test_train_mode_removes_what_is_read_otherwise_there(monkeypatch):
    """Of blocks whose inside is read alike, eval mode has proved it."""
    net = build(
        lambda net, x: net.out(net.first(x)),
        first=nn.Sequential(Block(), Block(), Smooth()),
        out=conv(16, 8))
    images = torch.randn(1, 3, 8, 8)
    recorder, again = (record(net, (images, ), run_model) for _ in range(2))
    recorder.again = again
    space = SpaceBuilder(recorder, Options()).build()
    element = {block.path: block.element for block in space.blocks}
    gone = [[path for path, e in element.items() if not each[e]]
            for each in trials(space, recorder, training=True)]
    assert gone == [['first.0']]

    def reads(block, of):
        return frozenset([('add', of is again and block.path == 'first.1')])

    monkeypatch.setattr('dms_razor.proof.trials._reads', reads)
    gone = [[path for path, e in element.items() if not each[e]]
            for each in trials(space, recorder, training=True)]
    assert gone == [['first.0'], ['first.1']]
