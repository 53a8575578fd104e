# Copyright (c) dms_razor contributors. All rights reserved.
"""One loss, of the soft network and of the one that it is rounded to."""
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.watch import soft_and_hard


def test_both_losses_and_nothing_else_changes():
    search = make_search(plain_net())
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 20)
    images, _ = plain_data()

    def loss():
        return search.model(images).square().mean()

    found = soft_and_hard(search, loss)
    with torch.no_grad():
        assert found[0] == float(loss())
        with search.masks('subnet'):
            assert found[1] == float(loss())
    assert found[0] != found[1] and search.bank.mode == 'soft'
    assert all(module.training for module in search.model.modules())
