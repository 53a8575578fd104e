# Copyright (c) dms_razor contributors. All rights reserved.
"""What a loop has forgotten is said, and is no result."""
import copy
import warnings

import pytest
import torch
from torch import nn

from dms_razor import Search

IMAGE = torch.zeros(1, 3, 8, 8)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 4))


def steps(search, net, optimizer, number):
    images = torch.randn(
        4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(number):
        optimizer.zero_grad()
        search.loss(net(images).square().mean()).backward()
        optimizer.step()


def begun(number=0, attach=True, **settings):
    net = network()
    search = Search(net, IMAGE, '50%', **{'total_steps': 9, **settings})
    optimizer = torch.optim.SGD(net.parameters(), .01)
    if attach:
        search.attach(optimizer)
    steps(search, net, optimizer, number)
    return search


def export(search, tmp_path):
    return search.export(tmp_path / 'subnet', picture=False)


def test_a_whole_search_is_exported_in_silence(tmp_path):
    for settings, number in ((dict(), 9), (dict(width_only_steps=3), 12)):
        search = begun(number, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            export(search, tmp_path / str(number))


@pytest.mark.parametrize('number, settings, message', [
    (4, dict(), 'is at step 4 of 9, where'),
    (9, dict(width_only_steps=3),
     'is at step 9 of 12, where 50.0% of the macs'),
])
def test_an_unfinished_one_is_told(number, settings, message, tmp_path):
    with pytest.warns(UserWarning, match=message):
        export(begun(number, **settings), tmp_path)
    report = (tmp_path / 'subnet' / 'report.md').read_text()
    assert 'was not finished' in report


def test_so_is_none_at_all(tmp_path):
    """The loop trained the network, and the search never knew."""
    with pytest.warns(UserWarning, match='not searched.*search.attach'):
        export(begun(), tmp_path)


def test_losses_without_a_step(tmp_path):
    search = begun(attach=False)
    search.loss(search.model(IMAGE).sum()).backward()
    with pytest.raises(RuntimeError, match='made no step.*attach'):
        export(search, tmp_path)


@pytest.mark.parametrize('other', [network, copy.deepcopy])
def test_an_optimizer_of_another_network(other):
    """Ratios would move, and no weight."""
    search = begun(attach=False)
    stranger = other(search.model) if other is copy.deepcopy else other()
    with pytest.raises(ValueError, match='none of the 6 of this Sequential'):
        search.attach(torch.optim.SGD(stranger.parameters(), .01))
    assert not search.attached
    # a part of it, or it with others, is no other
    search.attach(torch.optim.SGD(search.model[0].parameters(), .01))
    search.attach(
        torch.optim.SGD([*search.model.parameters(), *stranger.parameters()],
                        .01))
    # weights that rest are trained by nobody
    search.model.requires_grad_(False)
    search.attach(torch.optim.SGD(stranger.parameters(), .01))


@pytest.mark.parametrize('how', ['no_grad', 'detach'])
def test_a_loss_without_a_gradient(how):
    """Torch refuses it; the search's own part must not hide that."""
    search = begun()
    with torch.set_grad_enabled(how == 'detach'):
        loss = search.model(IMAGE).sum().detach()
    with pytest.raises(RuntimeError, match='has no gradient.*detach'):
        search.loss(loss)
    with torch.no_grad():
        assert search.loss(loss) == loss  # only looked at


def test_a_new_head_after_the_search_was_made(tmp_path):
    search = begun(attach=False)
    search.model[-1] = nn.Linear(16, 7)
    optimizer = torch.optim.SGD(search.model.parameters(), .01)
    for late in (lambda: search.attach(optimizer),
                 lambda: export(search, tmp_path)):
        with pytest.raises(
                ValueError,
                match=r'has changed .*6.weight \(4, 16\), now \(7, 16\)'):
            late()
