# Copyright (c) dms_razor contributors. All rights reserved.
"""A network that is saved whole while it is being searched."""
import copy
import io
import pickle

import pytest
import torch
from small_nets import IMAGES
from torch import nn
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor import Search
from dms_razor.masking.layers import MaskedLayer


class Pooled(nn.Module):

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 12, 1), nn.Linear(12, 4)
        self.conv = nn.Conv2d(12, 12, 3, padding=1)
        self.pool = nn.AvgPool2d(3, 1, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.fc((x + self.pool(self.conv(x))).mean((2, 3)))


def searched(net):
    """A network in the middle of its search."""
    search = Search(net, IMAGES[:1], target='50%', total_steps=30, lr=.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 10)
    return search


def saved(net):
    """The network, through a file."""
    file = io.BytesIO()
    with pytest.warns(UserWarning, match='the whole supernet without masks'):
        torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_a_file_holds_the_plain_network():
    search = searched(plain_net())
    net = search.model.eval()
    again = saved(net)
    assert not any(isinstance(m, MaskedLayer) for m in again.modules())
    assert any(isinstance(m, MaskedLayer) for m in net.modules())
    with search.masks('off'):
        assert torch.equal(again(IMAGES), net(IMAGES))
    assert not torch.equal(again(IMAGES), net(IMAGES))
    search.close()
    for (name, one), other in zip(net.named_modules(), again.modules()):
        assert type(one) is type(other), name
        assert set(vars(one)) == set(vars(other)), name


def test_it_can_be_searched_again():
    again = saved(searched(plain_net()).model)
    assert make_search(again).space.layout.U == 5


def test_hooks_of_blocks_do_nothing_in_it():
    """A block that ends in a pooling layer is masked by a hook."""
    search = searched(Pooled())
    assert search.space.blocks
    again = saved(search.model.eval())
    with search.masks('off'):
        torch.testing.assert_close(again(IMAGES), search.model(IMAGES))


def test_copies_in_memory_stay_masked():
    search = searched(plain_net())
    twin = copy.deepcopy(search.model)
    assert torch.equal(twin(IMAGES), search.model(IMAGES))
    with search.masks('off'):
        assert torch.equal(twin(IMAGES), search.model(IMAGES))
    names = [type(m) for m in search.model.modules()]
    assert [type(m) for m in twin.modules()] == names


def test_any_protocol_of_pickle():
    net = searched(plain_net()).model
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.warns(UserWarning):
            again = pickle.loads(pickle.dumps(net, protocol))
        for name, tensor in again.state_dict().items():
            assert torch.equal(tensor, net.state_dict()[name])
