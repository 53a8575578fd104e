# Copyright (c) dms_razor contributors. All rights reserved.
"""Who is told, when, and of which loss."""
import pytest
import torch

from dms_razor.watch import Watchers


def test_callbacks_are_told_in_order_until_they_are_removed():
    told, watchers = [], Watchers()
    remove = watchers.add(lambda search: told.append(('first', search)))
    watchers.add(lambda search: told.append(('second', search)))
    watchers.tell(1)
    remove(), remove()
    watchers.tell(2)
    assert told == [('first', 1), ('second', 1), ('second', 2)]


def test_one_may_end_itself():
    watchers = Watchers()
    remove = watchers.add(lambda search: remove())
    watchers.add(lambda search: told.append(search))
    told = []
    watchers.tell(1)
    assert told == [1] and len(watchers.callbacks) == 1


def test_the_loss_leaves_its_graph():
    watchers, weight = Watchers(), torch.tensor(3., requires_grad=True)
    assert watchers.loss is None
    watchers.see(weight * torch.tensor([1., 3.]))
    assert watchers.loss == 6. and watchers._loss.grad_fn is None


def test_what_is_no_loss_or_no_function_is_refused():
    with pytest.raises(TypeError, match=r'loss of the task is 0\.5, a float'):
        Watchers().see(.5)
    with pytest.raises(TypeError, match="'print' cannot be called"):
        Watchers().add('print')
