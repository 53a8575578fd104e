# Copyright (c) dms_razor contributors. All rights reserved.
"""The plain-Python search, on a network that knows nothing of OpenMMLab."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor import Search


class Block(nn.Module):

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class Net(nn.Module):

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(12) for _ in range(3)])
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.blocks(F.relu(self.stem(x)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 8, 8, generator=generator)
    return images, torch.arange(8) % 4


def make(net, **settings):
    settings = dict(dict(total_steps=30, lr=.1), **settings)
    return Search(net, torch.zeros(1, 3, 8, 8), **settings)


def train(search, optimizer, data, steps, accumulate=1):
    for _ in range(steps):
        optimizer.zero_grad()
        for images, labels in zip(*(x.chunk(accumulate) for x in data)):
            loss = search.loss(F.cross_entropy(search.model(images), labels))
            (loss / accumulate).backward()
        optimizer.step()


def test_ten_lines_from_network_to_subnet(net, data, tmp_path):
    search = Search(
        net,
        data[0][:1],
        target=0.5,
        total_steps=30,
        lr=.1,
        width_only_steps=5)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, 35)
    assert search.bank.depth_frozen
    subnet = search.export(tmp_path / 'subnet').model

    cost = search.resource(search.project().double(), search.keep().double())
    assert .99 * search.target <= cost <= search.target
    # The subnet is the supernet with hard masks, in a smaller dress.
    search.bank.set_kept(search.project())
    net.eval(), subnet.eval()
    with search.masks('hard'):
        torch.testing.assert_close(
            subnet(data[0]), net(data[0]), atol=1e-5, rtol=0)
    assert (sum(p.numel() for p in subnet.parameters())
            < sum(p.numel() for p in net.parameters()))
    assert (tmp_path / 'subnet' / 'subnet.json').exists()


def test_supernet_is_the_network_until_a_ratio_moves(net, data):
    plain = copy.deepcopy(net)
    search = make(net)
    search.bank.importance = torch.rand_like(search.bank.importance)
    search.bank.refresh()
    torch.testing.assert_close(net(data[0]), plain(data[0]), atol=1e-6, rtol=0)


def test_weights_get_the_gradient_they_would_get_without_search(net, data):
    plain = copy.deepcopy(net)
    search = make(net)
    search.loss(F.cross_entropy(net(data[0]), data[1])).backward()
    F.cross_entropy(plain(data[0]), data[1]).backward()
    for mine, theirs in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_loss_is_task_loss_plus_weighted_log_excess(net, data):
    search = make(net, loss_weight=2.5)
    search.attach(torch.optim.SGD(net.parameters(), lr=0.))
    train(search, torch.optim.SGD(net.parameters(), lr=0.), data, 0)
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
        search = make(model).attach(optimizer)
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
        net, images, total_steps=30, loss_weight=.7, lr=1e-3, seed=1)
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
    whole, parts = make(net), make(other)
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
    """What a GradScaler does when it sees infinities."""
    other = copy.deepcopy(net)
    search, undisturbed = make(net), make(other)
    for one in (search, undisturbed):
        optimizer = torch.optim.SGD(one.model.parameters(), lr=.05)
        one.attach(optimizer)
        train(one, optimizer, data, 2)
        if one is search:
            loss = one.loss(F.cross_entropy(one.model(data[0]), data[1]))
            (3 * loss).backward()
            optimizer.zero_grad(set_to_none=to_none)  # and no step
        train(one, optimizer, data, 2)
    assert search.bank.updates == 4
    torch.testing.assert_close(search.bank.ratios, undisturbed.bank.ratios)
    torch.testing.assert_close(search.bank.importance,
                               undisturbed.bank.importance)


def test_overflow_leaves_the_search_as_it_was(net, data):
    search = make(net)
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
    search = make(net, width_only_steps=4)
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
    search = make(net, total_steps=5)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, 8)
    assert not search.bank.depth_frozen and search.step_count == 8


def test_own_clock_can_be_taken_over(net, data):
    search = make(net, total_steps=10, target=.25)
    search.own_clock = False
    optimizer = torch.optim.SGD(net.parameters(), lr=0.)
    search.attach(optimizer)
    train(search, optimizer, data, 3)
    assert search.step_count == 0
    search.advance(5)  # half of the way in the exponent
    assert search.current_target == pytest.approx(
        .5 * search.resource.supernet('macs'))


def test_resumed_search_is_the_unbroken_one(net, data):
    other = copy.deepcopy(net)
    through = make(net, width_only_steps=5, total_steps=10)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    through.attach(optimizer)
    train(through, optimizer, data, 7)
    state, weights = through.state_dict(), copy.deepcopy(net.state_dict())
    train(through, optimizer, data, 8)

    resumed = make(other, width_only_steps=5, total_steps=10, seed=3)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    optimizer = torch.optim.SGD(other.parameters(), lr=.05)
    resumed.attach(optimizer)
    train(resumed, optimizer, data, 8)
    assert torch.equal(through.bank.ratios, resumed.bank.ratios)
    assert torch.equal(through.bank.importance, resumed.bank.importance)
    assert torch.equal(through.keep(), resumed.keep())


def test_state_holds_tensors_only(net, tmp_path):
    torch.save(make(net).state_dict(), tmp_path / 'state.pth')
    torch.load(tmp_path / 'state.pth', weights_only=True)


def test_search_adds_nothing_to_the_network(net):
    keys = list(net.state_dict())
    parameters = [id(p) for p in net.parameters()]
    search = make(net)
    assert list(net.state_dict()) == keys
    assert [id(p) for p in net.parameters()] == parameters
    assert search.close() is net
    assert type(net.stem) is nn.Conv2d and type(net.blocks[0]) is Block


def test_after_close_the_optimizer_steps_alone(net, data):
    search = make(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    search.close()
    F.cross_entropy(net(data[0]), data[1]).backward()
    optimizer.step()
    assert search.bank.updates == 0 and not search.attached


def test_mask_modes(net, data):
    plain = copy.deepcopy(net)
    search = make(net)
    search.bank.set_kept(search.project())
    with search.masks('off'):
        torch.testing.assert_close(net(data[0]), plain(data[0]))
    with search.masks('hard'):
        assert set(search.bank.current.tolist()) == {0., 1.}
    assert search.bank.mode == 'soft'


def test_structure_and_cost_are_those_of_the_bank(net):
    search = make(net, depth=False)
    half = search.space.layout.size // 2
    search.bank.set_kept(half)
    assert [unit['kept'] for unit in search.structure()] == half.tolist()
    # stem 3x6, three blocks of two 6x6, all 3x3 on 8x8; fc 6x4
    assert search.current(hard=True) == 64 * 9 * (18 + 6 * 36) + 24


def test_unread_units_are_named(net, data):
    search = make(net)
    assert len(search.unread_units()) == search.space.layout.U
    net(data[0])
    assert search.unread_units() == []
    search.attach_masks()
    net.blocks[1].conv2 = nn.Conv2d(12, 12, 3, padding=1)  # not masked
    net(data[0])
    assert search.unread_units() == ['blocks.1.conv1']


@pytest.mark.parametrize('target, message', [
    ('much', 'cannot be read'),
    (-1, 'not a positive'),
    ('200%', 'above the supernet'),
    (2e12, 'above the supernet'),
    (100, 'cannot be reached'),
])
def test_bad_targets_end_before_anything_is_masked(net, target, message):
    with pytest.raises(ValueError, match=message):
        make(net, target=target)
    assert type(net.stem) is nn.Conv2d


def test_other_bad_input(net):
    with pytest.raises(ValueError, match='head.conv'):
        make(net, units={'head.conv*': dict(fixed=True)})
    with pytest.raises(ValueError, match='(?i)nothing'):
        make(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(RuntimeError, match='forward'):
        Search(net, torch.zeros(1, 5, 8, 8), total_steps=9)
    with pytest.raises(ValueError, match='metric'):
        make(net, metric='seconds')
    with pytest.raises(ValueError, match='step_count'):
        make(net).load_state_dict(dict(bank={}))
