# Copyright (c) dms_razor contributors. All rights reserved.
"""Where a search stands, against what it was told and what was counted."""
import json

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor import Search
from dms_razor.counting import count_macs


def test_before_the_first_step():
    net = plain_net()
    macs = count_macs(net, torch.zeros(1, 3, 8, 8)).total
    status = Search(net, torch.zeros(1, 3, 8, 8), target='40%').status()
    assert (status.network, status.metric) == ('Net', 'macs')
    assert status.supernet == status.now == status.rounded == macs
    assert status.asked == macs, 'without a length nothing is asked for yet'
    assert status.target == pytest.approx(.4 * macs)
    assert status.loss is None and status.decides == 'nobody yet'
    assert 'it has no length yet' in str(status)


def test_after_some_steps():
    search = make_search(plain_net(), target='50%', width_only_steps=4)
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 12)
    status = search.status()
    assert (status.step, status.steps) == (12, 34)
    assert status.asked == search.current_target
    assert status.rounded == search.current(hard=True) < status.supernet
    text = repr(search)
    assert text == str(status) and 'step     12 of 34' in text
    assert f'loss     {status.loss:.4g}' in text
    assert 'decides  ' in text and '12 steps are few' in text
    again = json.loads(json.dumps(status.to_dict()))
    assert again['decision']['steps'] == 12
    page = status._repr_html_()
    assert page.count('<tr>') == page.count('</tr>') >= 6
    assert '12 of 34' in page


def test_the_loss_is_the_tasks():
    search = make_search(plain_net())
    search.loss(torch.tensor(2.5, requires_grad=True))
    assert search.status().loss == 2.5, 'without the loss of the resource'
