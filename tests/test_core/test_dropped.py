# Copyright (c) dms_razor contributors. All rights reserved.
"""Gradients that are not finite: counted, told, and not for ever."""
import logging
import warnings

import pytest
import torch
from small_nets import IMAGES, build, conv
from torch import nn

from dms_razor import Search
from dms_razor.core.bank import Bank
from dms_razor.core.dropped import DroppedSteps
from dms_razor.core.layout import Layout, Unit
from dms_razor.subnet import SubnetError


def small():
    torch.manual_seed(0)
    return build(
        lambda net, x: net.out(net.norm(net.conv(x)).relu()),
        conv=conv(16, 8),
        norm=nn.BatchNorm2d(8),
        out=conv(8, 8))


def run(search, optimizer, factors):
    """One step for each factor that the loss is multiplied by."""
    for factor in factors:
        optimizer.zero_grad()
        loss = search.model(IMAGES).square().mean() * factor
        search.loss(loss).backward()
        optimizer.step()


def begun(**settings):
    net = small()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    search = Search(net, IMAGES[:1], total_steps=40, **settings)
    return search.attach(optimizer), optimizer


def test_a_search_of_nan_ends(caplog, tmp_path):
    search, optimizer = begun()
    nan = float('nan')
    with caplog.at_level(logging.WARNING, 'dms_razor'):
        run(search, optimizer, [1.] * 3 + [nan] * 9)
    assert [
        r.getMessage().startswith('The gradient of step 4 is not finite')
        for r in caplog.records
    ] == [True]
    assert search.dropped.total == 9 and search.bank.updates == 3
    assert 'steps dropped: 9 with a gradient' in repr(search)
    with pytest.raises(
            FloatingPointError,
            match=r'10 steps in a row, up to step 13.*checkpoint before step 4'
    ):
        run(search, optimizer, [nan])
    with pytest.raises(SubnetError, match=r'conv\.weight.*NaN or infinite'):
        search.export(tmp_path / 'subnet', picture=False)
    assert not (tmp_path / 'subnet').exists()


def test_single_ones_do_not_end_it():
    search, optimizer = begun()
    before = {k: v.clone() for k, v in search.model.state_dict().items()}
    for _ in range(15):
        run(search, optimizer, [float('inf')])
        search.model.load_state_dict(before)
        run(search, optimizer, [1.])
    assert search.dropped.total == 15 and search.bank.updates == 15
    search.dropped.limit = None
    run(search, optimizer, [float('nan')] * 12)
    assert search.dropped.in_row == 12


@pytest.mark.parametrize('to_none', [True, False])
@pytest.mark.parametrize('clear_first', [True, False])
def test_what_a_scaler_skips_is_counted_apart(clear_first, to_none):
    """Towards the end skipped steps count at a scale of 1 alone.

    Weights may be cleared before the forward pass or between loss and
    backward, as in the example of the README.
    """
    search, optimizer = begun()

    def skip(scale, times):
        for _ in range(times):
            if clear_first:
                optimizer.zero_grad(to_none)
            loss = search.loss(search.model(IMAGES).sum() * float('inf'))
            if not clear_first:
                optimizer.zero_grad(to_none)
            (loss * scale).backward()  # and no step

    skip(1024., 12)  # the next backward sees that there was none
    assert (search.dropped.skipped, search.dropped.in_row) == (11, 0)
    skip(1., 10)
    assert (search.dropped.skipped, search.dropped.in_row) == (21, 9)
    with pytest.raises(FloatingPointError, match='10 steps in a row'):
        skip(1., 1)
    assert search.dropped.total == 0


@pytest.mark.parametrize('poisoned', [(0, ), (3, ), (1, 2), (0, 1, 2, 3)])
def test_accumulated_steps_are_counted_once(poisoned):
    """However many of their micro-batches are NaN."""
    search, optimizer = begun()
    before = {k: v.clone() for k, v in search.model.state_dict().items()}
    for step in range(3):
        for batch in range(4):
            loss = search.model(IMAGES).square().mean()
            if step == 1 and batch in poisoned:
                loss = loss * float('nan')
            (search.loss(loss) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()
        search.model.load_state_dict(before)
    assert (search.dropped.total, search.dropped.skipped) == (1, 0)
    assert search.bank.updates == 2


def test_a_diverged_accumulation_ends_after_ten_steps():
    search, optimizer = begun()
    with pytest.raises(FloatingPointError, match='10 steps in a row, up to'):
        for step in range(11):
            for _ in range(4):
                loss = search.model(IMAGES).square().mean() * float('nan')
                (search.loss(loss) / 4).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert step == 9 and search.dropped.skipped == 0


def test_skipped_at_full_precision():
    dropped, bank = DroppedSteps(limit=3), Bank(
        Layout([Unit('a', 'width', 4)]))
    weight = torch.ones(4, requires_grad=True)

    def skipped(factor, scale, step):
        loss = (bank.masks * weight).sum() * factor + bank.loss_anchor()
        (loss * scale).backward()
        weight.grad = None
        dropped.look(bank, [weight.grad], step)

    for number in range(5):
        skipped(float('inf'), 8., number)
    skipped(1., 1., 5)
    dropped.look(bank, [weight.grad], 5)
    for number in range(2):
        skipped(float('inf'), 1., number)
    assert dropped.text() == 'steps dropped: 7 skipped by the loss scaling'
    with pytest.raises(FloatingPointError, match='3 steps in a row'):
        skipped(float('nan'), .5, 2)
    dropped.count(True, 3)
    assert dropped.in_row == 0


def test_a_search_whose_optimizer_takes_no_step_is_told():
    """Another one does; or PyTorch 2.1 has taken its hooks off."""
    search, optimizer = begun()
    other = torch.optim.SGD(search.model.parameters(), 1e-3)
    run(search, optimizer, [1.] * 3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        run(search, other, [1.] * 10)  # the first leaves its gradients
        assert not told
        run(search, other, [1.] * 10)
    assert [
        'attach the search to the optimizer' in str(one.message)
        for one in told
    ] == [True]
    assert search.bank.updates == 3
    run(search, optimizer, [1.] * 3)
    assert search.bank.updates == 6 and search.dropped.unused == 0
