# Copyright (c) dms_razor contributors. All rights reserved.
"""BatchNorm statistics taken anew, against means and variances by hand."""
import copy

import pytest
import torch
from torch import nn

from dms_razor.subnet import build_subnet, export_subnet
from dms_razor.subnet.statistics import recalibrate, training_norms
from .helpers import Net as CutNet
from .helpers import images, net, some_keep, space


class Net(nn.Module):
    """A norm on the input, one that its author froze, dropout between."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(.5)
        self.frozen = nn.BatchNorm2d(3)
        self.last = nn.BatchNorm2d(3)

    def train(self, mode=True):
        """Frozen norms stay in eval mode."""
        super().train(mode)
        self.frozen.eval()
        for parameter in self.frozen.parameters():
            parameter.requires_grad_(False)
        return self

    def forward(self, x):
        return self.last(self.frozen(self.drop(self.first(x))))


def batches(number=4):
    return [(2 * torch.randn(6, 3, 5, 5) + torch.arange(3).view(3, 1, 1), 'y')
            for _ in range(number)]


def test_statistics_are_the_average_over_the_batches():
    net, data = Net(), batches()
    net.first.running_mean.fill_(7.)
    assert recalibrate(net, data, number=3) == 3
    mean = sum(x.mean((0, 2, 3)) for x, _ in data[:3]) / 3
    var = sum(x.var((0, 2, 3)) for x, _ in data[:3]) / 3
    torch.testing.assert_close(net.first.running_mean, mean)
    torch.testing.assert_close(net.first.running_var, var)


def test_frozen_norms_dropout_flags_and_generators_stay():
    net = Net().train()
    net.frozen.running_mean.fill_(.3)
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    flags = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    data = batches()
    state = torch.get_rng_state()
    recalibrate(net, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in net.modules()] == flags
    assert net.first.momentum == net.last.momentum == .1
    assert torch.equal(net.frozen.running_mean, torch.full((3, ), .3))
    assert all(p.requires_grad for p in net.parameters())
    # Dropout was off: what the last norm saw is the frozen norm's output.
    seen = []
    net.eval()
    net.last.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    recalibrate(net, data, number=1)
    torch.testing.assert_close(net.last.running_mean, seen[0].mean((0, 2, 3)))


def test_norms_that_train_are_those_of_the_networks_own_train():
    net = Net().eval()
    assert training_norms(net) == [net.first, net.last]
    assert not net.training and not net.first.training


def test_nothing_changes_if_it_fails():
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match='at least one batch'):
        recalibrate(net, [])
    with pytest.raises(ZeroDivisionError):
        recalibrate(net, batches(), forward=lambda m, b: m(b[0]) / (1 / 0))
    with pytest.raises(ValueError, match='at least 1'):
        recalibrate(net, batches(), number=0)
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_an_error_in_a_later_batch_changes_nothing_either():
    net, data = Net(), [*batches(1), ('no image', 'y')]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises((AttributeError, TypeError)):
        recalibrate(net, data)
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_norm_that_no_batch_goes_through_keeps_its_statistics():
    net = Net()
    net.extra = nn.BatchNorm2d(2)
    net.extra.running_mean.fill_(.7)
    recalibrate(net, batches())
    assert torch.equal(net.extra.running_mean, torch.full((2, ), .7))
    assert not torch.equal(net.first.running_mean, torch.zeros(3))


def test_a_network_without_such_norms_needs_no_data():
    assert recalibrate(nn.Linear(2, 2), []) == 0


def test_an_export_takes_the_statistics_of_its_own_subnet(tmp_path):
    supernet, data = net(), [images(8) + number for number in range(3)]
    before = copy.deepcopy(supernet.state_dict())
    plain = export_subnet(tmp_path / 'a', supernet, space(), some_keep())
    done = export_subnet(
        tmp_path / 'b', supernet, space(), some_keep(), bn_data=data)
    assert 'from 3 batches' in (tmp_path / 'b' / 'report.md').read_text()
    # the supernet's own are as they were
    after = supernet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # by hand: what each norm of the subnet reads
    subnet, seen = plain.model, {}
    for name, module in subnet.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda m, args, name=name: seen.setdefault(name, []).append(
                    args[0].transpose(0, 1).flatten(1).mean(1)))
            module.momentum = None
            module.reset_running_stats()
    assert seen == {} and len(data) == 3
    subnet.train()
    for batch in data:
        subnet(batch)
    built = build_subnet(CutNet(), tmp_path / 'b', tmp_path / 'b/subnet.pth')
    for name, means in seen.items():
        found = built.get_submodule(name).running_mean
        torch.testing.assert_close(found, torch.stack(means).mean(0))
        assert not torch.equal(found,
                               before[f'{name}.running_mean'][:len(found)])
    assert seen and done.model is not plain.model
