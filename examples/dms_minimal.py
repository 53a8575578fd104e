# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling in one file, to be read beside the paper.

A perceptron with two hidden layers and three residual blocks is searched for
half of its multiply-adds. It needs torch and ``dms_razor.core`` alone: masks
are written into the network by hand, where the package finds their places by
itself. Numbers in brackets are the paper's equations. Run it with
``python examples/dms_minimal.py``.
"""
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor.core import (Layout, Unit, constraint_loss, hard_masks,
                            initial_order, kept_counts, project, rank_order,
                            ranks_from_order, ratio_bounds, soft_masks)
from dms_razor.core.budget import TargetSchedule
from dms_razor.core.resource import Axis, Cost, ResourceModel, Term

INPUTS, WIDTH, INNER, BLOCKS, CLASSES = 16, 32, 24, 3, 4
STEPS, LR, TARGET = 400, .02, .5  # the budget: half of the multiply-adds

# A unit has one pruning ratio a; its elements are channels, or whole blocks.
LAYOUT = Layout([
    Unit('stem', 'width', WIDTH),
    *(Unit(f'block{i}', 'width', INNER) for i in range(BLOCKS)),
    Unit('stage', 'depth', BLOCKS),
])


class Net(nn.Module):
    """Masks multiply what a layer takes in, and the branch of a block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(INPUTS, WIDTH)
        self.up = nn.ModuleList(nn.Linear(WIDTH, INNER) for _ in range(BLOCKS))
        self.down = nn.ModuleList(
            nn.Linear(INNER, WIDTH) for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x, masks):
        stem, *inner, stage = masks.float().split(
            [unit.size for unit in LAYOUT.units])
        x = F.relu(self.stem(x))
        for up, down, mask, block in zip(self.up, self.down, inner, stage):
            x = x + block * down(F.relu(up(x * stem)) * mask)
        return self.head(x * stem)


def multiply_adds():
    """[8]: Π of widths and block masks, summed over the layers."""
    inputs, classes = Axis((Term(INPUTS), )), Axis((Term(CLASSES), ))
    # Factor 1 + u is what unit u keeps, (1 - a)N.
    widths = [Axis((Term(1, (1 + u, )), )) for u in range(1 + BLOCKS)]
    first = LAYOUT.slice_of(LAYOUT.index('stage')).start
    costs = [
        Cost('stem', 'Linear', 'macs', 1, (0, 2)),
        # up and down; nothing once the block is gone
        *(Cost(f'block{i}', 'Linear', 'macs', 2, (2, 3 + i), (first + i, ))
          for i in range(BLOCKS)),
        Cost('head', 'Linear', 'macs', 1, (2, 1))
    ]
    return ResourceModel([inputs, classes, *widths], costs, LAYOUT)


def data(size, seed):
    """Points around four centres, which eight of the inputs tell."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(
        CLASSES, 8, generator=torch.Generator().manual_seed(7))
    labels = torch.randint(CLASSES, (size, ), generator=generator)
    x = torch.randn(size, INPUTS, generator=generator)
    x[:, :8] += centres[labels]
    return x, labels


def search(net, macs):
    """Train weights and ratios side by side; returns ratios and ranks."""
    optimizer = torch.optim.SGD(net.parameters(), lr=.05, momentum=.9)
    target = TargetSchedule(  # [10]: falls exponentially to the budget
        macs.supernet(), TARGET * macs.supernet(), STEPS - 100)
    ratios = torch.zeros(LAYOUT.U, dtype=torch.float64)  # a: nothing pruned
    importance = torch.zeros(LAYOUT.E, dtype=torch.float64)  # c
    order = initial_order(LAYOUT)
    low, high = ratio_bounds(LAYOUT)
    for step in range(STEPS):
        x, y = data(64, seed=step)
        # [2] ranks of the importances; nothing flows through them
        order = rank_order(importance, LAYOUT, order)
        ranks = ranks_from_order(order, LAYOUT)
        # [3] soft masks, differentiable in the ratios
        a = ratios.clone().requires_grad_()
        soft = soft_masks(a, ranks, LAYOUT)
        masks = soft.detach().requires_grad_()
        # [5] L = L_task + λ_res·L_res, and λ_res = 1
        loss = F.cross_entropy(net(x, masks), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # [6], [7] the cost in the continuous counts, against its target
        cost = macs((1 - a) * LAYOUT.size, soft)
        resource = constraint_loss(cost, target(step))
        slope, = torch.autograd.grad([soft, resource], a, [masks.grad, None])
        # [4] the gradient of the task alone makes the importance
        taylor = (masks.detach() * masks.grad).square()
        importance = .99 * importance + .01 * taylor
        if step:  # plain SGD, once importances say something (A.3.5)
            ratios = (ratios - LR * slope).clamp(low, high)
    return ratios, ranks


def main():
    torch.manual_seed(0)
    net, macs = Net(), multiply_adds()
    ratios, ranks = search(net, macs)
    budget = TARGET * macs.supernet()
    # [1] k elements of each unit stay; a common shift meets the budget
    kept = project(LAYOUT, macs, ratios, 'macs', budget, ranks=ranks)
    masks = hard_masks(kept, ranks, LAYOUT)
    for unit, a, rounded, k in zip(LAYOUT.units, ratios,
                                   kept_counts(ratios, LAYOUT), kept):
        print(f'{unit.name:7} a = {a:.2f}, rounded {rounded:2} of '
              f'{unit.size:2}, on the budget {k:2}')
    cost = macs(kept.double(), masks.double()).item()
    x, y = data(2000, seed=STEPS)
    accuracy = (net(x, masks).argmax(1) == y).float().mean().item()
    print(f'{cost:,.0f} of {macs.supernet():,.0f} multiply-adds, '
          f'{cost / budget:.1%} of the budget; accuracy {accuracy:.1%}')
    return dict(cost=cost, budget=budget, accuracy=accuracy, kept=kept)


if __name__ == '__main__':
    main()
