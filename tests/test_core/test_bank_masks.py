# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import io

import pytest
import torch
from torch import nn

from dms_razor.core import Bank, Layout, Unit, soft_masks
from .helpers import MaskedNet, task_loss

LAYOUT = Layout([
    Unit('a', 'width', 6, groups=2),
    Unit('b', 'heads', 4),
    Unit('d', 'depth', 3),
])


def new_bank(seed=0, **kwargs):
    """A bank in the middle of a search."""
    bank = Bank(LAYOUT, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    bank.ratios = torch.rand(
        LAYOUT.U, generator=generator, dtype=torch.float64) * .7
    bank.importance = torch.rand(
        LAYOUT.E, generator=generator, dtype=torch.float64)
    bank.updates = 3
    bank.refresh()
    return bank


def test_masks_are_a_new_leaf_of_the_asked_type():
    bank = new_bank()
    first = bank.masks
    assert first.is_leaf and first.requires_grad
    assert first.dtype == torch.float32
    torch.testing.assert_close(
        first.double().detach(),
        soft_masks(bank.ratios, bank.ranks, LAYOUT),
        atol=1e-7,
        rtol=0)
    bank.refresh()
    assert bank.masks is not first and bank.masks.equal(first)
    assert Bank(LAYOUT, dtype=torch.bfloat16).masks.dtype == torch.bfloat16


def test_modes():
    bank = new_bank()
    assert bank.mode == 'soft' and bank.current is bank.masks
    bank.mode = 'hard'
    hard = bank.current
    assert hard.equal(bank.hard().float()) and not hard.requires_grad
    assert bank.current is hard  # not worked out for every layer again
    bank.set_kept(torch.tensor([1, 2, 0]))
    assert bank.current.equal(bank.hard().float())
    assert bank.current.sum().item() == 2 * 1 + 2 + 0
    bank.mode = 'off'
    assert bank.current.equal(torch.ones(LAYOUT.E))
    with pytest.raises(ValueError, match='no masks were given'):
        bank.mode = 'given'
    keep = torch.arange(LAYOUT.E) % 2 == 0
    bank.give(keep)
    bank.mode = 'given'
    assert bank.current.equal(keep.float())
    with pytest.raises(ValueError, match='"on" is not known.*soft, hard, off'):
        bank.mode = 'on'


@pytest.mark.parametrize('mode', ['soft', 'hard', 'off'])
def test_masks_first_read_in_inference_mode_serve_training(mode):
    bank = new_bank()
    with torch.inference_mode():
        bank.refresh()
        bank.mode = mode
        bank.current.sum()
    weight = torch.ones(LAYOUT.E, requires_grad=True)
    (weight * bank.current).sum().backward()
    assert weight.grad.equal(bank.current.detach())


def test_tiny_masks_are_neither_zero_nor_denormal():
    bank = Bank(Layout([Unit('a', 'width', 256)]))
    bank.ratios[0] = .8
    bank.refresh()
    masks = bank.masks.detach()
    assert masks.min() == torch.finfo(torch.float32).eps
    # Five masks and a small gradient, multiplied, are no denormal.
    product = 1e-2 * masks.min()**5
    assert product > torch.finfo(torch.float32).tiny


def test_counts_and_masks_of_the_resource():
    bank = new_bank()
    soft = bank.counts()
    assert soft.tolist() == pytest.approx([
        (1 - a) * u.size for a, u in zip(bank.ratios.tolist(), LAYOUT.units)
    ])
    assert bank.counts(hard=True).equal(bank.kept().double())
    assert bank.resource_masks(hard=True).equal(bank.hard().double())
    leaf = bank.ratios.clone().requires_grad_()
    total = bank.counts(ratios=leaf).sum() + bank.resource_masks(
        ratios=leaf).sum()
    grad, = torch.autograd.grad(total, leaf)
    assert bool((grad < 0).all())
    assert bank.masks.grad is None  # another path than the layers'


def test_set_kept_is_exact_and_checked():
    bank = new_bank()
    for kept in ([6, 4, 3], [1, 1, 0], [5, 3, 1]):
        bank.set_kept(torch.tensor(kept))
        assert bank.kept().tolist() == kept
        assert bank.hard().sum() == 2 * kept[0] + kept[1] + kept[2]
    before = bank.ratios.clone()
    for kept, message in (([0, 4, 3], '"a" cannot keep 0 of 6'),
                          ([1, 5, 3], '"b" cannot keep 5 of 4.*from 1 to 4'),
                          ([1.5, 1, 1], '"a" cannot keep 1.5')):
        with pytest.raises(ValueError, match=message):
            bank.set_kept(torch.tensor(kept))
    with pytest.raises(ValueError, match=r'shape \(2,\), there are 3 units'):
        bank.set_kept(torch.tensor([1, 1]))
    assert bank.ratios.equal(before)


def test_it_is_no_part_of_the_networks_state():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    keys = list(net.state_dict())
    net.add_module('bank', new_bank())
    assert list(net.state_dict()) == keys
    assert not list(net.bank.parameters()) and not list(net.bank.buffers())
    net.load_state_dict(net.state_dict(), strict=True)
    assert len(list(net.parameters())) == 4
    net.requires_grad_(False)
    assert net.bank.masks.requires_grad


def test_it_follows_the_network_to_another_type():
    net = nn.Sequential(nn.Linear(2, 2))
    net.add_module('bank', new_bank())
    bank, before = net.bank, net.bank.masks
    net.to('cpu').float()
    assert bank.masks is before  # a gradient on it is not lost
    net.double()
    assert bank.masks.dtype == torch.float64 and bank.masks.requires_grad
    net.half()
    assert bank.masks.dtype == torch.float16
    assert bank.ratios.dtype == bank.importance.dtype == torch.float64
    torch.testing.assert_close(bank.masks.float(), before, atol=1e-3, rtol=0)


def test_masks_follow_the_network_to_another_device():
    """Without an accelerator at hand: the meta device keeps the books."""
    bank = new_bank()
    bank.to('meta')
    for name in ('masks', 'scale', 'current'):
        assert getattr(bank, name).device.type == 'meta', name
    for name in ('ratios', 'importance', 'order', 'ranks'):
        assert getattr(bank, name).device.type == 'cpu', name
    for mode in ('hard', 'off'):
        bank.mode = mode
        assert bank.current.device.type == 'meta', mode
    bank.give(bank.hard())
    bank.mode = 'given'
    assert bank.current.device.type == 'meta'


def test_copies_are_independent():
    bank = new_bank()
    (bank.current.sum() + bank.loss_anchor()).backward()
    twin = copy.deepcopy(bank)
    assert twin.update() and not twin.ratios.equal(bank.ratios)
    assert bank.masks.grad is not None
    assert bank.update()
    assert twin.ratios.equal(bank.ratios)
    assert twin.importance.equal(bank.importance)
    assert twin.masks.equal(bank.masks) and twin.masks is not bank.masks


def test_it_survives_pickling():
    bank, buffer = new_bank(), io.BytesIO()
    torch.save(bank, buffer)
    buffer.seek(0)
    other = torch.load(buffer, weights_only=False)
    assert other.masks.equal(bank.masks)
    (other.current.sum() + other.loss_anchor()).backward()
    assert other.update()


def test_gradients_of_a_float64_network():
    net = MaskedNet()
    bank = Bank(net.layout)
    holder = nn.ModuleList([net, bank])
    holder.double()
    (task_loss(net, bank.current) + bank.loss_anchor()).backward()
    assert bank.masks.grad.dtype == torch.float64
    assert bank.update()


def test_print_says_what_it_is():
    assert '3 units, 19 elements' in repr(new_bank())
