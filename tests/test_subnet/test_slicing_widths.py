# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from torch import nn

from dms_razor.subnet import SubnetError
from dms_razor.subnet.slicing import get_width, set_width


class Backbone(nn.Module):
    widths = [1, 2, 3]
    flag = True


def test_numbers_tuples_and_lists():
    conv, norm, backbone = nn.Conv2d(3, 8, 1), nn.LayerNorm((2, 8)), Backbone()
    assert get_width(conv, 'a', 'out_channels') == 8
    set_width(conv, 'a', 'out_channels', 5)
    assert conv.out_channels == get_width(conv, 'a', 'out_channels') == 5
    set_width(norm, 'b', 'normalized_shape', 6)
    assert norm.normalized_shape == (2, 6)
    assert get_width(norm, 'b', 'normalized_shape') == 6
    set_width(backbone, 'c', 'widths.1', 9)
    assert backbone.widths == [1, 9, 3] and Backbone.widths == [1, 2, 3]
    assert get_width(backbone, 'c', 'widths.1') == 9


@pytest.mark.parametrize('name', [
    'flag', 'flag.0', 'widths.7', 'forward', 'nothing', 'weight',
    'in_channels.0', 'bias'
])
def test_what_is_no_width(name):
    module = Backbone()
    module.in_channels, module.weight = 3, nn.Parameter(torch.ones(2))
    with pytest.raises(
            SubnetError,
            match=f"Module 'net.a' .Backbone. has no "
            f'width .{name}.. The description'):
        set_width(module, 'net.a', name, 1)
