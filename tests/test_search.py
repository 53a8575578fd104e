# Copyright (c) dms_razor contributors. All rights reserved.
"""The plain-Python search, on a network that knows nothing of OpenMMLab."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_nets import Block, make_search, plain_data, plain_net, train

from dms_razor import Search


@pytest.fixture
def net():
    return plain_net()


@pytest.fixture
def data():
    return plain_data()


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
    search = make_search(net)
    search.bank.importance = torch.rand_like(search.bank.importance)
    search.bank.refresh()
    torch.testing.assert_close(net(data[0]), plain(data[0]), atol=1e-6, rtol=0)


def test_resumed_search_is_the_unbroken_one(net, data):
    other = copy.deepcopy(net)
    through = make_search(net, width_only_steps=5, total_steps=10)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    through.attach(optimizer)
    train(through, optimizer, data, 7)
    state, weights = through.state_dict(), copy.deepcopy(net.state_dict())
    train(through, optimizer, data, 8)

    resumed = make_search(other, width_only_steps=5, total_steps=10, seed=3)
    other.load_state_dict(weights)
    resumed.load_state_dict(state, with_changes=True)  # of the seed
    optimizer = torch.optim.SGD(other.parameters(), lr=.05)
    resumed.attach(optimizer)
    train(resumed, optimizer, data, 8)
    assert torch.equal(through.bank.ratios, resumed.bank.ratios)
    assert torch.equal(through.bank.importance, resumed.bank.importance)
    assert torch.equal(through.keep(), resumed.keep())


def test_state_holds_tensors_only(net, tmp_path):
    torch.save(make_search(net).state_dict(), tmp_path / 'state.pth')
    torch.load(tmp_path / 'state.pth', weights_only=True)


def test_search_adds_nothing_to_the_network(net):
    keys = list(net.state_dict())
    parameters = [id(p) for p in net.parameters()]
    search = make_search(net)
    assert list(net.state_dict()) == keys
    assert [id(p) for p in net.parameters()] == parameters
    assert search.close() is net
    assert type(net.stem) is nn.Conv2d and type(net.blocks[0]) is Block


def test_after_close_the_optimizer_steps_alone(net, data):
    search = make_search(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    search.close()
    F.cross_entropy(net(data[0]), data[1]).backward()
    optimizer.step()
    assert search.bank.updates == 0 and not search.attached


@pytest.mark.parametrize('target, message', [
    ('much', 'cannot be read'),
    (-1, 'not a positive'),
    ('200%', 'above the supernet'),
    (2e12, 'above the supernet'),
    (100, 'cannot be reached'),
])
def test_bad_targets_end_before_anything_is_masked(net, target, message):
    with pytest.raises(ValueError, match=message):
        make_search(net, target=target)
    assert type(net.stem) is nn.Conv2d


def test_a_search_without_steps_exports_nothing(net, data, tmp_path):
    search = make_search(net)
    search.loss(F.cross_entropy(net(data[0]), data[1])).backward()
    with pytest.raises(RuntimeError, match='search.attach'):
        search.export(tmp_path / 'subnet')
    assert not (tmp_path / 'subnet').exists()
    search.step()
    search.export(tmp_path / 'subnet')


def test_a_network_is_searched_once(net):
    first = make_search(net)
    with pytest.raises(ValueError, match='already has the masks'):
        make_search(net)
    first.close()
    make_search(net)


def test_the_preflight_prints_as_a_table(net):
    assert str(make_search(net).preflight()).startswith('Pre-flight')


def test_other_bad_input(net):
    with pytest.raises(ValueError, match='needs a target'):
        make_search(net, target=None)
    with pytest.raises(TypeError, match='dict of name patterns'):
        make_search(net, units=['stem'])
    with pytest.raises(ValueError, match='switch one on'):
        make_search(net, width=False, depth=False)
    with pytest.raises(ValueError, match='head.conv'):
        make_search(net, units={'head.conv*': dict(fixed=True)})
    with pytest.raises(ValueError, match='(?i)nothing'):
        make_search(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(RuntimeError, match='forward'):
        Search(net, torch.zeros(1, 5, 8, 8), total_steps=9)
    with pytest.raises(ValueError, match='no costs in "seconds"'):
        make_search(net, metric='seconds')
    for settings in (dict(lr=float('nan')), dict(lr='5e-3'),
                     dict(loss_weight=-1), dict(loss_weight=float('nan')),
                     dict(total_steps=1.5), dict(width_only_steps=-1)):
        name, = settings
        with pytest.raises(ValueError, match=name):
            make_search(net, **settings)
    with pytest.raises(ValueError, match='_orig_mod'):
        make_search(torch.compile(net, backend='eager'))
    with pytest.raises(ValueError, match='scripted'):
        make_search(torch.jit.trace(net, torch.zeros(1, 3, 8, 8)))
    with pytest.raises(ValueError, match='no state of a search'):
        make_search(net).load_state_dict(dict(bank={}))


def test_soft_and_hard_losses_beside_each_other(net, data):
    """Against forwards by hand; nothing of the search is touched."""
    net = nn.Sequential(net.stem, nn.BatchNorm2d(12), nn.ReLU(), *net.blocks,
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.fc)
    search = make_search(net, total_steps=6, lr=.3)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, 4)
    net.train()
    before = copy.deepcopy(net.state_dict())
    state, random = search.state_dict(), torch.get_rng_state()

    def loss():
        return F.cross_entropy(net(data[0]), data[1])

    soft, hard = search.soft_and_hard(loss)
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert soft != hard and net.training and search.bank.mode == 'soft'
    for name, value in net.state_dict().items():
        assert value.equal(before[name]), name
    assert torch.get_rng_state().equal(random)
    for name, value in search.state_dict()['bank'].items():
        assert value.equal(state['bank'][name]), name
    with torch.no_grad():
        assert loss().item() == pytest.approx(soft, rel=1e-6)
        with search.masks('subnet'):
            assert loss().item() == pytest.approx(hard, rel=1e-6)


def test_automatic_steps_go_with_an_automatic_weight(net):
    """Normalised steps would carry the resource loss far past its target."""
    assert make_search(net, lr=None).bank.lr == 'auto'
    assert make_search(plain_net(), lr=None, loss_weight=1.).bank.lr == 5e-3
    with pytest.raises(ValueError, match="lr='auto' beside a loss_weight of"):
        make_search(plain_net(), lr='auto', loss_weight=1.)


def test_a_state_of_0_1_is_told_from_new_settings(net, data):
    search = make_search(net)
    state = search.state_dict()
    del state['projected']
    with pytest.warns(UserWarning, match='begun by dms_razor 0.1.*lr=5e-3'):
        search.load_state_dict(state)


def test_nothing_to_cut_is_no_doubt(net, data):
    search = make_search(net, target='100%', total_steps=5)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, 3)
    assert not any('resource alone' in doubt
                   for doubt in search.decision().doubts())
