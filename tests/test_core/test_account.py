# Copyright (c) dms_razor contributors. All rights reserved.
"""Who moved the ratios, added up by hand."""
import torch

from dms_razor.core.account import Account
from dms_razor.core.bank import Bank
from dms_razor.core.layout import Layout, Unit

LAYOUT = Layout([Unit('a', 'width', 4), Unit('b', 'width', 8)])


def step(bank, grad, **losses):
    bank.masks.grad = grad.float()
    bank.scale.grad = torch.ones(())
    assert bank.update(**losses)


def test_task_and_resource_are_told_apart():
    bank = Bank(LAYOUT, lr=.1)
    grad = torch.linspace(-1, 1, LAYOUT.E)
    step(bank, grad)  # ratios rest in the first update
    moves = []
    for _ in range(3):
        before = bank.ratios.clone()
        leaf = before.clone().requires_grad_()
        slope, = torch.autograd.grad(
            bank.resource_masks(ratios=leaf) @ grad.double(), leaf)
        task = (before - .1 * slope).clamp(min=0)
        step(bank, grad, resource_loss=lambda counts, masks: counts.sum() / 12)
        moves.append((task - before, bank.ratios - task))
    task, resource = (sum(part) for part in zip(*moves))
    torch.testing.assert_close(
        bank.motion.account.task, task, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        bank.motion.account.resource, resource, atol=1e-6, rtol=1e-5)
    account = bank.motion.account
    assert account.steps == 4 and account.resource_on == 3


def test_without_a_resource_all_is_the_tasks():
    bank = Bank(LAYOUT, lr=.1)
    for _ in range(3):
        step(bank, torch.ones(LAYOUT.E))
    assert bank.motion.account.task.equal(bank.ratios) and bank.ratios.any()
    assert not bank.motion.account.resource.any(
    ) and bank.motion.account.resource_on == 0


def test_it_is_saved_and_older_states_have_none():
    bank = Bank(LAYOUT, lr=.1)
    for _ in range(3):
        step(
            bank,
            torch.ones(LAYOUT.E),
            excess=lambda counts, masks: torch.log(counts.sum() / 6))
    state = bank.state_dict()
    other = Bank(LAYOUT)
    other.load_state_dict(state)
    assert other.motion.account.task.equal(bank.motion.account.task)
    assert bank.motion.account.resource_on == 2
    assert other.motion.account.resource_on == 2
    old = {
        name: value
        for name, value in state.items()
        if name not in Account(LAYOUT).state()
    }
    other.load_state_dict(old)
    assert other.motion.account.steps == 0 and other.updates == 3
