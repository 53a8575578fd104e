# Copyright (c) dms_razor contributors. All rights reserved.
"""Curves, by loggers of three kinds."""
import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.watch import WriterLog


class Board:
    """Takes scalars as TensorBoard's SummaryWriter does."""

    def __init__(self):
        self.seen = {}

    def add_scalar(self, tag, value, step):
        self.seen.setdefault(tag, []).append((step, value))


class Run:
    """Takes scalars as a run of W&B does."""

    def __init__(self):
        self.seen = {}

    def log(self, scalars, step):
        for tag, value in scalars.items():
            self.seen.setdefault(tag, []).append((step, value))


class Function(Run):

    def __call__(self, scalars, step):
        super().log(scalars, step)

    log = None


@pytest.mark.parametrize('kind', [Board, Run, Function])
def test_curves(kind):
    writer, search = kind(), make_search(plain_net())
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    search.attach(optimizer)
    remove = search.log_to(writer, every=8)
    losses = []
    search.on_step(lambda search: losses.append(search.watchers.loss))
    train(search, optimizer, plain_data(), 30)
    steps = [step for step, _ in writer.seen['dms/asked']]
    assert steps == [8, 16, 24, 30], 'the last step has a point'
    whole = search.resource.supernet('macs')
    assert writer.seen['dms/asked'][-1][1] == pytest.approx(.5)
    assert writer.seen['dms/hard'][-1][1] == \
        search.current(hard=True) / whole
    assert [value for _, value in writer.seen['dms/loss']
            ] == [losses[step - 1] for step in steps]
    kept = {unit['name']: unit['kept'] for unit in search.structure()}
    assert writer.seen['dms/kept/stem'][-1][1] == kept['stem'] / 12
    remove()
    train(search, optimizer, plain_data(), 10)
    assert len(writer.seen['dms/asked']) == 4


def test_a_real_writer(tmp_path):
    board = pytest.importorskip('torch.utils.tensorboard')
    search = make_search(plain_net())
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    with board.SummaryWriter(tmp_path) as writer:
        search.attach(optimizer).log_to(writer)
        train(search, optimizer, plain_data(), 10)
    assert list(tmp_path.iterdir())


def test_what_takes_no_scalars_is_refused():
    with pytest.raises(TypeError, match='str takes no scalars: give a writer'):
        WriterLog('runs/search')
    with pytest.raises(ValueError, match='every is 0'):
        WriterLog(print, every=0)
