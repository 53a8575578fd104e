# Copyright (c) dms_razor contributors. All rights reserved.
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dms_razor.core import Bank, Layout, Unit, constraint_loss
from .helpers import MaskedNet, batch, task_loss

TARGET = 60.


def resource_loss(counts, masks):
    return .7 * constraint_loss(MaskedNet.resource()(counts, masks), TARGET)


def new_bank(**kwargs):
    kwargs.setdefault('dtype', torch.float64)
    kwargs.setdefault('lr', .05)
    return Bank(MaskedNet.layout, **kwargs)


def backward(bank, net, data=None, scale=1.):
    loss = task_loss(net, bank.current, data) + bank.loss_anchor()
    (loss * scale).backward()


def searched(steps=5, **kwargs):
    """A bank some steps into a search, with interior ratios."""
    bank, net = new_bank(**kwargs), MaskedNet()
    for _ in range(steps):
        backward(bank, net)
        assert bank.update(resource_loss)
    return bank, net


class ByHand:
    """The method again, with lists, loops and the math module alone."""

    def __init__(self, bank):
        self.layout, self.lr = bank.layout, bank.lr
        self.a = [0.] * bank.layout.U
        self.c = [0.] * bank.layout.E
        self.order = bank.order.tolist()
        self.steps = 0

    def rank(self):
        ranks = [0] * len(self.c)
        for row in range(self.layout.R):
            inside = [
                e for e in self.order if self.layout.row_of_element[e] == row
            ]
            for rank, e in enumerate(sorted(inside, key=lambda e: self.c[e])):
                ranks[e] = rank
        self.order = sorted(
            range(len(self.c)),
            key=lambda e: (int(self.layout.row_of_element[e]), ranks[e]))
        return ranks

    def mask(self, u, rank, a):
        unit = self.layout.units[u]
        four = 4 if unit.kind == 'depth' else 1
        sigma = 1 / (1 + math.exp(-four * (rank + .5 - a * unit.size)))
        m = 1 - min(1, a * unit.size) * (1 - sigma)
        return m * min(1, (1 - a) * unit.size) if unit.kind == 'depth' else m

    def masks(self, a):
        units = self.layout.unit_of_element.tolist()
        return [self.mask(u, r, a[u]) for u, r in zip(units, self.rank())]

    def resource(self, a):
        stem, h0, h1, h2, _ = [(1 - x) * unit.size
                               for x, unit in zip(a, self.layout.units)]
        m0, m1, m2 = self.masks(a)[-3:]
        figure = 3 * stem + 2 * stem + 2 * stem * (
            m0 * h0 + m1 * h1 + m2 * 2 * h2)
        return .7 * max(0., math.log(figure / TARGET))

    def step(self, grad):
        units, masks = self.layout.unit_of_element.tolist(), self.masks(self.a)
        if self.steps:
            new = []
            for u, unit in enumerate(self.layout.units):
                h = 1e-6

                def at(delta, u=u):
                    return [x + delta * (v == u) for v, x in enumerate(self.a)]

                high, low = self.masks(at(h)), self.masks(at(-h))
                slope = sum(g * (p - q) / (2 * h)
                            for g, p, q in zip(grad, high, low))
                slope += (self.resource(at(h)) - self.resource(at(-h))) / (2 *
                                                                           h)
                most = 1. if unit.kind == 'depth' else 1 - 1 / unit.size
                new.append(min(max(self.a[u] - self.lr * slope, 0.), most))
            self.a = new
        self.c = [
            .99 * c + .01 * (m * g)**2 for c, m, g in zip(self.c, masks, grad)
        ]
        self.steps += 1
        assert len(units) == len(grad)


def test_update_against_the_method_by_hand():
    bank, net = new_bank(), MaskedNet()
    hand = ByHand(bank)
    for _ in range(8):
        torch.testing.assert_close(
            bank.masks.detach(),
            torch.tensor(hand.masks(hand.a)).double(),
            atol=1e-5,
            rtol=0)
        grad, = torch.autograd.grad(task_loss(net, bank.masks), bank.masks)
        backward(bank, net)
        assert bank.update(resource_loss)
        # One-sided differences at the identity would see the blend's kink,
        # so the first move is taken over from the bank.
        if hand.steps == 1:
            hand.step(grad.tolist())
            hand.a = bank.ratios.tolist()
        else:
            hand.step(grad.tolist())
        assert bank.ratios.tolist() == pytest.approx(hand.a, abs=1e-6)
        assert bank.importance.tolist() == pytest.approx(
            hand.c, rel=1e-4, abs=1e-12)
    assert bank.ratios.max() > .05 and bank.updates == 8


def test_nothing_moves_before_the_first_importance():
    bank, net = new_bank(), MaskedNet()
    assert bool((bank.masks == 1).all())
    backward(bank, net)
    grad = bank.masks.grad.clone()
    assert bank.update(resource_loss) and bank.updates == 1
    assert bool((bank.ratios == 0).all()) and bool((bank.masks == 1).all())
    torch.testing.assert_close(bank.importance, .01 * grad.square())
    backward(bank, net)
    bank.update(resource_loss)
    assert bool((bank.ratios > 0).any())


@pytest.mark.parametrize('with_resource', [False, True])
def test_ratio_gradient_against_finite_differences(with_resource):
    bank, net = searched()
    bank.ratios = torch.tensor([.37, .55, .42, .3, .45]).double()
    bank.refresh()
    ranks = bank.ranks.clone()
    loss = resource_loss if with_resource else None

    def total(ratios):
        masks = bank.resource_masks(ratios=ratios)
        value = task_loss(net, masks)
        if loss is not None:
            value = value + loss(bank.counts(ratios=ratios), masks)
        return value.item()

    before, h = bank.ratios.clone(), 1e-6
    differences = []
    for u in range(bank.layout.U):
        delta = torch.zeros(bank.layout.U).double()
        delta[u] = h
        differences.append(
            (total(before + delta) - total(before - delta)) / (2 * h))
    expected = torch.tensor(differences).double()
    assert bank.ranks.equal(ranks)
    backward(bank, net)
    bank.lr = 1e-3
    bank.update(loss)
    actual = (before - bank.ratios) / bank.lr
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < 1e-6


def test_resource_gradient_never_reaches_the_importance():
    with_loss, net = searched()
    without, _ = searched()
    for bank, loss in ((with_loss, resource_loss), (without, None)):
        backward(bank, net)
        bank.update(loss)
    assert with_loss.importance.equal(without.importance)
    assert not with_loss.ratios.equal(without.ratios)


@pytest.mark.parametrize('scale, parts', [(65536., 1), (65536., 4), (1., 4)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_loss_scale_and_accumulation_cancel_exactly(scale, parts, dtype):
    plain, net = searched(dtype=dtype)
    scaled, _ = searched(dtype=dtype)
    backward(plain, net)
    for _ in range(parts):
        backward(scaled, net, scale=scale / parts)
    assert scaled.scale.grad.item() == scale
    plain.update(resource_loss)
    scaled.update(resource_loss)
    assert scaled.ratios.equal(plain.ratios)
    assert scaled.importance.equal(plain.importance)


def test_anchor_is_zero_and_measures_the_scale():
    bank = new_bank(dtype=torch.float16)
    anchor = bank.loss_anchor()
    assert anchor.item() == 0 and anchor.dtype == torch.float32
    (anchor * 2.**20).backward()
    assert bank.scale.grad.item() == 2**20
    # it does not widen a float32 loss
    assert (torch.zeros(()) + bank.loss_anchor()).dtype == torch.float32


@pytest.mark.parametrize('poison', [float('inf'), float('nan')])
def test_steps_that_are_not_finite_are_dropped(poison):
    bank, net = searched()
    before = {k: v.clone() for k, v in bank.state_dict().items()}
    masks = bank.masks
    backward(bank, net)
    bank.masks.grad[3] = poison
    assert bank.update(resource_loss) is False
    assert all(v.equal(before[k]) for k, v in bank.state_dict().items())
    assert bank.masks is masks and masks.grad is None
    clean, _ = searched()
    for each in (bank, clean):
        backward(each, net)
        assert each.update(resource_loss) is True
    assert bank.ratios.equal(clean.ratios)


def test_a_resource_loss_that_is_not_finite_is_dropped():
    bank, net = searched()
    before = bank.ratios.clone()
    backward(bank, net)
    assert not bank.update(lambda counts, masks: counts.sum() * math.inf)
    assert bank.ratios.equal(before)


def test_a_resource_loss_without_gradient():
    with_constant, net = searched()
    without, _ = searched()
    for bank, loss in ((with_constant, lambda c, m: torch.zeros(
        ())), (without, None)):
        backward(bank, net)
        assert bank.update(loss)
    assert with_constant.ratios.equal(without.ratios)


def test_missing_gradients_are_explained():
    bank, net = new_bank(), MaskedNet()
    with pytest.raises(
            RuntimeError,
            match='not worked out by the network.*Call loss.backward'):
        bank.update()
    task_loss(net, bank.masks).backward()
    with pytest.raises(RuntimeError, match='add bank.loss_anchor()'):
        bank.update()
    bank.drop_gradient()
    assert bank.masks.grad is None and bank.scale.grad is None
    bank.mode = 'hard'
    bank.loss_anchor().backward()
    with pytest.raises(RuntimeError, match='mode "hard", set bank.mode'):
        bank.update()


def test_ratios_stay_within_the_bounds_of_their_units():
    layout = Layout([
        Unit('a', 'width', 4, least=2),
        Unit('b', 'width', 4, most=3),
        Unit('c', 'width', 1),
        Unit('d', 'depth', 2),
    ])
    bank = Bank(layout, lr=100.)
    assert bool((bank.masks == 1).all())  # no random pruning at the start

    def push(direction):
        (bank.current.sum() * direction + bank.loss_anchor()).backward()
        bank.update()

    push(1.)
    assert bank.ratios.tolist() == [0, .25, 0, 0]
    push(1.)
    assert bank.ratios.tolist() == [.5, .75, 0, 1]
    assert bank.kept().tolist() == [2, 1, 1, 0]
    assert bank.current[8].item() == 1  # the only element of c
    push(-1.)
    assert bank.ratios.tolist() == [0, .25, 0, 0]


def test_frozen_depth_is_hard_and_rests():
    bank, net = searched(20)
    bank.ratios[4] = .4  # 1.8 of 3 blocks
    bank.freeze_depth()
    assert bank.kept()[4] == 2 and bank.frozen_kept.equal(bank.kept())
    blocks = bank.layout.slice_of(4)
    fixed = bank.ratios[4].clone()
    importance = bank.importance[blocks].clone()
    keep = bank.hard()[blocks].clone()
    width = bank.ratios[:4].clone()
    seen = []

    def resource(counts, masks):
        seen.append((counts.clone(), masks.clone()))
        return resource_loss(counts, masks) + .1 * (counts.sum() + masks.sum())

    for _ in range(5):
        # gradients that would reorder the blocks and move their ratio
        (task_loss(net, bank.current) + bank.loss_anchor() -
         100 * bank.current[blocks][0]).backward()
        assert bank.update(resource)
        assert bank.ratios[4].equal(fixed)
        assert bank.importance[blocks].equal(importance)
        assert bank.masks[blocks].detach().equal(keep.double())
        assert bank.hard()[blocks].equal(keep)
    for counts, masks in seen:
        assert counts[4] == 2
        assert masks[blocks].detach().equal(keep.double())
    assert not bank.ratios[:4].equal(width)
    assert bank.counts()[4] == 2


def test_depth_can_be_frozen_at_a_given_count():
    bank, _ = searched(10)
    width = bank.ratios[:4].clone()
    bank.freeze_depth(torch.tensor([1, 1, 1, 1, 1]))
    assert bank.kept()[4] == 1 and bank.ratios[:4].equal(width)
    assert bank.masks[bank.layout.slice_of(4)].sum() == 1
    with pytest.raises(ValueError, match='"stage" cannot keep 4 of 3'):
        bank.freeze_depth(torch.tensor([1, 1, 1, 1, 4]))


@pytest.mark.parametrize('reentrant', [False, True])
def test_under_activation_checkpointing(reentrant):
    plain, net = searched()
    stored, _ = searched()
    backward(plain, net)
    x, y = batch()
    out = checkpoint(
        lambda x: net(x, stored.current),
        x.clone().requires_grad_(),
        use_reentrant=reentrant)
    ((out - y).square().mean() + stored.loss_anchor()).backward()
    torch.testing.assert_close(stored.masks.grad, plain.masks.grad)


def test_work_does_not_grow_with_the_number_of_units():

    class Counter(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    def calls(units):
        bank = Bank(
            Layout([Unit(f'u{i}', 'width', 8) for i in range(units)] +
                   [Unit(f'd{i}', 'depth', 3) for i in range(units)]))
        (bank.current.sum() + bank.loss_anchor()).backward()
        with Counter() as counter:
            bank.update(lambda counts, masks: counts.sum())
        return counter.calls

    assert calls(2) == calls(200) < 220


def test_updates_in_inference_and_under_autocast():
    plain, net = searched()
    mixed, _ = searched()
    for bank in (plain, mixed):
        backward(bank, net)
    plain.update(resource_loss)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed.update(resource_loss)
    assert mixed.ratios.equal(plain.ratios)
    assert mixed.masks.equal(plain.masks) and mixed.masks.requires_grad


@pytest.mark.parametrize('arguments, message', [
    (dict(importance='l1'), '"l1" is not known'),
    (dict(decay=1.), 'decay of the importance is 1.0'),
    (dict(lr=0.), 'lr of the ratios.* is 0.0'),
    (dict(lr=float('nan')), 'lr of the ratios.* is nan'),
    (dict(dtype=torch.int64), 'use a float type'),
])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        new_bank(**arguments)


@pytest.mark.parametrize('metric', ['snip', 'fisher', 'index', 'taylor'])
def test_every_metric_orders_by_its_figure(metric):
    bank, net = new_bank(importance=metric), MaskedNet()
    grad, = torch.autograd.grad(task_loss(net, bank.masks), bank.masks)
    backward(bank, net)
    bank.update()
    figure = -bank.layout.place_in_row if metric == 'index' else grad.abs()
    for row in range(bank.layout.R):
        inside = bank.layout.row_of_element == row
        assert figure[inside].argsort().argsort().equal(bank.ranks[inside])


def test_hard_masks_with_the_slope_of_the_soft_ones():
    """Layers read 0 and 1; the ratios move as the soft masks would."""
    bank, net = searched()
    soft, kept = bank.masks.detach().clone(), bank.hard()
    before, ranks = bank.ratios.clone(), bank.ranks.clone()
    importance = bank.importance.clone()
    bank.harden()
    assert bank.masks[kept].eq(1).all() and not kept.all()
    # Not 0: in front of a ReLU that would have no gradient.
    assert (0 < bank.masks[~kept]).all() and (bank.masks[~kept] < 1e-6).all()
    backward(bank, net)
    grad = bank.masks.grad.clone()
    bank.update()
    slope = torch.autograd.functional.jacobian(
        lambda numbers: bank.selector.soft(numbers, ranks), before).T @ grad
    moved = before - .05 * slope
    torch.testing.assert_close(
        bank.ratios, moved.clamp(bank.selector.low, bank.selector.high))
    torch.testing.assert_close(bank.importance,
                               .99 * importance + .01 * (grad * soft)**2)
    bank.harden(False)
    torch.testing.assert_close(bank.masks.detach(),
                               bank.selector.soft(bank.ratios, bank.ranks))
