# Copyright (c) dms_razor contributors. All rights reserved.
"""What a training loop gets from a search: loss terms and updates."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor import Search


@pytest.fixture
def net():
    return plain_net()


@pytest.fixture
def data():
    return plain_data()


def test_weights_get_the_gradient_they_would_get_without_search(net, data):
    plain = copy.deepcopy(net)
    search = make_search(net)
    search.loss(F.cross_entropy(net(data[0]), data[1])).backward()
    F.cross_entropy(plain(data[0]), data[1]).backward()
    for mine, theirs in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_loss_is_task_loss_plus_weighted_log_excess(net, data):
    search = make_search(net, loss_weight=2.5)
    search.advance(30)
    task = F.cross_entropy(net(data[0]), data[1])
    excess = torch.tensor(search.current() / search.target).log()
    torch.testing.assert_close(
        search.loss(task) - task, 2.5 * excess, atol=1e-5, rtol=1e-5)
    assert search.current() == search.resource.supernet('macs')


def test_ratios_move_by_plain_sgd_whatever_the_optimizer(net, data):
    """Adam with decay on the weights, lr 0: the same path of the ratios."""
    other = copy.deepcopy(net)
    paths = []
    for model, optimizer in ((net, torch.optim.SGD(net.parameters(), lr=0.)),
                             (other,
                              torch.optim.AdamW(
                                  other.parameters(), lr=0.,
                                  weight_decay=9.))):
        search = make_search(model).attach(optimizer)
        train(search, optimizer, data, 6)
        paths.append(search.bank.ratios)
    assert paths[0].max() > .01
    torch.testing.assert_close(*paths)


def test_ratios_follow_the_gradient_of_task_and_resource_loss(data):
    """Against central differences of the loss, in float64, smooth network."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.SiLU(),
        nn.Conv2d(8, 6, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4)).double()
    images, labels = data[0].double(), data[1]
    search = Search(
        net,
        images,
        total_steps=30,
        loss_weight=.7,
        lr=1e-3,
        harden=0.,
        seed=1)
    bank = search.bank
    search.own_clock = False
    search.advance(30)
    assert bank.masks.dtype == torch.float64
    bank.importance = torch.rand(bank.layout.E).double()
    bank.updates = 1  # the ratios rest in the first update
    at = torch.linspace(.31, .43, bank.layout.U).double()

    def set_ratios(ratios):
        bank.ratios = ratios.clone()
        bank.refresh()

    def loss():
        return search.loss(F.cross_entropy(net(images), labels))

    numeric = torch.zeros_like(at)
    for i in range(len(at)):
        values = []
        for sign in (1, -1):
            moved = at.clone()
            moved[i] += sign * 1e-6
            set_ratios(moved)
            search.advance(30)  # another network, another resource
            values.append(loss().item())
        numeric[i] = (values[0] - values[1]) / 2e-6
    set_ratios(at)
    loss().backward()
    search.step()
    error = (at - bank.ratios) / bank.lr - numeric
    assert error.abs().max() / numeric.abs().max() < 1e-6


@pytest.mark.parametrize('scale', [1., 65536.])
def test_accumulation_and_loss_scaling_change_nothing(net, data, scale):
    other = copy.deepcopy(net)
    whole, parts = make_search(net), make_search(other)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.)
    train(whole.attach(optimizer), optimizer, data, 5)

    optimizer = torch.optim.SGD(other.parameters(), lr=0.)
    parts.attach(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        for images, labels in zip(data[0].chunk(4), data[1].chunk(4)):
            loss = parts.loss(F.cross_entropy(other(images), labels))
            (loss / 4 * scale).backward()
        optimizer.step()
    torch.testing.assert_close(
        parts.bank.ratios, whole.bank.ratios, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        parts.bank.importance, whole.bank.importance, atol=0, rtol=1e-3)


@pytest.mark.parametrize('to_none', [True, False])
def test_gradient_of_a_skipped_step_is_dropped(net, data, to_none):
    """What a GradScaler does when it sees infinities.

    The skipped batch is another one: a multiple of the gradient that follows
    would cancel with the scale of the loss.
    """
    other, flipped = copy.deepcopy(net), -data[0].flip(-1)
    search, undisturbed = make_search(net), make_search(other)
    for one in (search, undisturbed):
        optimizer = torch.optim.SGD(one.model.parameters(), lr=.05)
        one.attach(optimizer)
        train(one, optimizer, data, 2)
        if one is search:
            loss = one.loss(F.cross_entropy(one.model(flipped), data[1]))
            (3 * loss).backward()
            optimizer.zero_grad(set_to_none=to_none)  # and no step
        train(one, optimizer, data, 2)
    assert search.bank.updates == 4
    torch.testing.assert_close(search.bank.ratios, undisturbed.bank.ratios)
    torch.testing.assert_close(search.bank.importance,
                               undisturbed.bank.importance)


def test_overflow_leaves_the_search_as_it_was(net, data):
    search = make_search(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.)
    search.attach(optimizer)
    train(search, optimizer, data, 3)
    before = search.bank.ratios.clone()
    loss = search.loss(F.cross_entropy(net(data[0]), data[1]))
    (loss * float('inf')).backward()
    assert not search.step()
    assert torch.equal(search.bank.ratios, before)
    train(search, optimizer, data, 1)
    assert not torch.equal(search.bank.ratios, before)


def test_depth_freezes_on_the_budget_and_stays(net, data):
    search = make_search(net, width_only_steps=4)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, 30)
    assert search.bank.depth_frozen
    assert (.99 * search.target <= search.current(hard=True) <= search.target)
    depth = search.space.layout.is_depth
    frozen, width = search.bank.ratios[depth], search.bank.ratios[~depth]
    train(search, optimizer, data, 4)
    assert torch.equal(search.bank.ratios[depth], frozen)
    assert not torch.equal(search.bank.ratios[~depth], width)


def test_depth_does_not_freeze_unless_asked(net, data):
    search = make_search(net, total_steps=5)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, 8)
    assert not search.bank.depth_frozen and search.step_count == 8


def test_own_clock_can_be_taken_over(net, data):
    search = make_search(net, total_steps=10, target=.25, fall=1.)
    search.own_clock = False
    optimizer = torch.optim.SGD(net.parameters(), lr=0.)
    search.attach(optimizer)
    train(search, optimizer, data, 3)
    assert search.step_count == 0
    search.advance(5)  # half of the way in the exponent
    assert search.current_target == pytest.approx(
        .5 * search.resource.supernet('macs'))


def test_the_term_is_that_of_the_present_target_and_masks(net):
    """Its value is worked out once a step, and again when one has moved."""
    search = make_search(net, loss_weight=2.)

    def agrees():
        excess = search.current() / search.current_target
        expected = 2 * torch.tensor(excess).clamp(min=1).log()
        torch.testing.assert_close(search.resource_term().detach(), expected)
        return expected > 0

    assert not agrees()
    search.advance(15)
    assert agrees()
    search.advance(30)
    assert agrees()
    search.bank.set_kept(search.space.layout.size // 2)
    assert not agrees()
    search.bank.set_kept(search.space.layout.size)
    assert agrees()
    search.set_length(10)
    assert not agrees()


def test_one_optimizer_drives_the_search(net, data):
    search = make_search(net)
    first, second = (
        torch.optim.SGD(net.parameters(), lr=.05) for _ in range(2))
    search.attach(first)
    assert search.attach(second) is search and search.attached
    search.loss(F.cross_entropy(net(data[0]), data[1])).backward()
    first.step()
    assert search.bank.updates == 0
    second.step()
    assert search.bank.updates == 1


@pytest.mark.parametrize('harden, first', [(0., None), (.2, 10), (1., 0)])
def test_the_last_steps_run_with_hard_masks(harden, first):
    """Ten steps and two of width alone: of twelve, a fifth are two."""
    search = make_search(
        plain_net(), total_steps=10, width_only_steps=2, harden=harden)
    hard = []
    for step in range(12):
        search.advance(step)
        hard.append(search.bank.hardened)
    assert hard == [first is not None and step >= first for step in range(12)]
    other = make_search(
        plain_net(), total_steps=10, width_only_steps=2, harden=harden)
    search.advance(11)
    other.load_state_dict(search.state_dict())
    assert other.bank.hardened == search.bank.hardened
    assert torch.equal(other.bank.current, search.bank.current)


def test_a_share_of_hard_steps_is_checked():
    with pytest.raises(ValueError, match='harden is 1.5.* at most 1'):
        make_search(plain_net(), harden=1.5)
