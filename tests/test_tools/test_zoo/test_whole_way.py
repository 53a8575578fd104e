# Copyright (c) dms_razor contributors. All rights reserved.
"""What a row says of networks that are right, wrong, refused and foreign."""
import pytest
import torch
from torch import nn

from dms_razor.trace import trace
from tools.zoo.again import build_again
from tools.zoo.case import Case, images
from tools.zoo.record import Record
from tools.zoo.whole_way import draw, parameters_outside, prove
from . import nets


@pytest.fixture
def row(tmp_path):
    """``row(case)`` -> the record of a network."""

    def make(case):
        record = Record('toys', 'a')
        record.save(tmp_path / 'a.json')
        prove(record, case, tmp_path)
        return record

    return make


def test_a_network_that_is_right(row, tmp_path):
    record = row(nets.build('plain'))
    assert record.status == 'equal', record.problem
    assert record.eval_error < 1e-12 and record.train_error < 1e-12
    assert record.precision == record.train_precision == 'float64'
    macs = 4 * 8 * 27 + 32 * 5  # by hand
    assert record.macs['supernet'] == [macs, macs]
    assert record.macs['subnet'][0] < macs
    assert record.units == dict(width=1) and record.elements == 8
    removable = 8 * 27 + 3 * 8 + 32 * 5
    assert record.share == pytest.approx(removable / (removable + 5))
    assert (tmp_path / 'subnet' / 'subnet.json').exists()
    build_again(record, nets.build('plain'), tmp_path)
    assert (record.status, record.reload_error) == ('equal', 0)


def test_an_export_that_another_process_builds_otherwise(row, tmp_path):
    record = row(nets.build('plain'))
    wanted = torch.load(tmp_path / 'outputs.pt')
    torch.save([1.01 * t for t in wanted], tmp_path / 'outputs.pt')
    build_again(record, nets.build('plain'), tmp_path)
    assert record.status == 'wrong' and 'reloaded' in record.problem


def test_a_network_that_is_silently_wrong(row):
    record = row(nets.build('counts'))
    assert record.status == 'wrong' and 'eval mode' in record.problem
    assert record.eval_error > 1e-2


class TrainCounts(nn.Module):
    """The same in training alone, where no code asks for the mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Sequential(nn.Conv2d(3, 8, 1), Scaled())
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.last(self.norm(x))


class Scaled(nn.Module):

    def forward(self, x):
        return x * x.shape[1] if self.training else x


def test_train_mode_alone(row):
    case = Case(TrainCounts(), images(4), options=dict(check=False))
    record = row(case)
    assert record.status == 'wrong' and 'train mode' in record.problem
    assert record.eval_error < 1e-12


def test_a_refusal_is_no_error_of_others(row):
    record = row(nets.build('bare'))
    assert record.status == 'refused' and record.stage == 'trace'
    assert record.problem.startswith('ValueError: ')


def test_an_error_of_others(row):
    record = row(nets.build('odd'))
    assert record.status == 'foreign' and 'nonsense' in record.problem


def test_nothing_finite(row):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardtanh(), nn.Conv2d(4, 2, 1))
    case = Case(
        net, lambda samples, seed: torch.full((samples, 3, 2, 2), torch.nan))
    record = row(case)
    assert record.status == 'not built' and 'finite' in record.problem


def test_what_is_in_no_unit():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1))
    space = trace(net, torch.randn(1, 3, 4, 4))
    # all of the second bias; of both weights nothing stays for certain
    assert parameters_outside(net,
                              space) == [('output of the network', 5, ['1'])]


def test_draws_are_of_any_count():
    net = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 5, 1))
    space = trace(net, torch.randn(1, 3, 4, 4))
    counts = {int(draw(space, seed).sum()) for seed in range(30)}
    assert len(counts) > 10 and min(counts) >= 1
