# Copyright (c) dms_razor contributors. All rights reserved.
"""What a run changes in a module is seen, and undone."""
from collections import deque

import pytest
import torch
from torch import nn

from dms_razor.network.attributes import Attributes


class Keeper(nn.BatchNorm1d):
    """A module that keeps things of every kind."""

    def __init__(self):
        super().__init__(3)
        self.late, self.seen, self.names = False, [1], {'a', 'b'}
        self.last, self.known = deque([1, 2]), dict(x=1)
        self.map = torch.zeros(2)


CHANGES = dict(
    an_attribute=lambda net: setattr(net, 'late', True),
    a_new_one=lambda net: setattr(net, 'more', 1),
    a_lost_one=lambda net: delattr(net, 'late'),
    a_list=lambda net: net.seen.append(1),
    a_set=lambda net: net.names.add('c'),
    a_deque=lambda net: net.last.rotate(),
    a_mapping=lambda net: net.known.update(x=2),
    a_tensor=lambda net: net.map.add_(1),
    a_parameter=lambda net: delattr(net, 'bias'),
    a_buffer=lambda net: net.register_buffer('more', torch.ones(1)),
    a_part=lambda net: net.add_module('part', nn.ReLU()),
    a_hook=lambda net: net.register_forward_hook(print),
    its_class=lambda net: setattr(net, '__class__', nn.BatchNorm1d))


@pytest.mark.parametrize('change', CHANGES)
def test_a_change_is_seen_and_undone(change):
    net = Keeper()
    names = sorted(vars(net))
    kept = Attributes(net)
    net.eval()
    assert not kept.changed()  # flags aside
    CHANGES[change](net)
    assert kept.changed()
    kept.restore()
    assert sorted(vars(net)) == names and type(net) is Keeper
    assert not net.late and net.seen == [1] and net.names == {'a', 'b'}
    assert net.last == deque([1, 2]) and net.known == dict(x=1)
    assert torch.equal(net.map, torch.zeros(2)) and net.training
    assert sorted(net.state_dict()) == sorted(Keeper().state_dict())
    assert not list(net.children()) and not net._forward_hooks
