# Copyright (c) dms_razor contributors. All rights reserved.
"""Is a space true? Masked against sliced network, closed form against count.

The two sides are independent: the masked network is the unpruned one with
zeros in its weights, the sliced one has smaller tensors, and the count is
that of torch.utils.flop_counter, made on the sliced network.
"""
import copy

import torch

from dms_razor.core.bank import Bank
from dms_razor.counting import count_macs, count_params
from dms_razor.masking import attach, unmask
from dms_razor.network import tensors_of
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace


def randomise(model, seed=0):
    """Random numbers for all parameters and statistics; no zeros, no ones."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor):
        return torch.rand(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1 and tensor.abs().max() > 0:
                continue
            scale = 1 if 'bias' not in name else .2
            tensor.copy_(scale * (.5 + noise(tensor)))
            if 'bias' in name:
                tensor.sub_(scale * 1.)
        for name, tensor in model.named_buffers():
            if name.endswith('running_mean'):
                tensor.copy_(noise(tensor) - .5)
            elif name.endswith('running_var'):
                tensor.copy_(.5 + noise(tensor))
    return model


def keep_of(space, kept, seed=0):
    """``keep``, bool [E]: ``kept(unit)`` random elements of every group."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.zeros(space.layout.E, dtype=torch.bool)
    for number, unit in enumerate(space.units):
        start = space.layout.slice_of(number).start
        number = min(max(int(kept(unit)), unit.least), unit.most)
        for group in range(unit.groups):
            order = torch.randperm(unit.size, generator=generator)
            keep[start + group * unit.size + order[:number]] = True
    return keep


def random_keep(space, seed):
    """Any number of elements of each unit."""
    generator = torch.Generator().manual_seed(1000 + seed)

    def number(unit):
        span = unit.most - unit.least + 1
        return unit.least + torch.randint(span, (), generator=generator)

    return keep_of(space, number, seed)


def extreme_keeps(space):
    """Smallest network; smallest widths of all blocks; all width, no block."""
    return [
        keep_of(space, lambda unit: unit.least),
        keep_of(space, lambda unit: unit.most
                if unit.kind == 'depth' else unit.least),
        keep_of(space, lambda unit: unit.least
                if unit.kind == 'depth' else unit.most),
    ]


def keeps(space, number=4):
    """Extreme and random subnets."""
    return extreme_keeps(space) + [
        random_keep(space, seed) for seed in range(number)
    ]


def outputs(model, inputs, forward=None):
    """All float tensors that the network returns, in eval mode."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs, )
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        out = forward(model, *inputs) if forward else model(*inputs)
    return [t for t in tensors_of(out) if t.is_floating_point()]


def distance(expected, found):
    """Largest difference over largest output."""
    assert len(expected) == len(found) > 0
    worst = 0.
    for a, b in zip(expected, found):
        assert a.shape == b.shape
        assert torch.isfinite(a).all() and a.abs().max() > 0
        worst = max(worst, float((a - b).abs().max() / a.abs().max()))
    return worst


def masked_outputs(model, space, masks, inputs, forward=None):
    """Outputs under the given masks [E]; the model is plain afterwards."""
    masks = masks.to(next(model.parameters()))
    attach(model, space, lambda: masks)
    try:
        return outputs(model, inputs, forward)
    finally:
        unmask(model)


def difference(model, space, keep, inputs, forward=None):
    """Masked against sliced network, over the largest output."""
    expected = masked_outputs(model, space, keep, inputs, forward)
    subnet = slice_model(model, space, keep)
    return distance(expected, outputs(subnet, inputs, forward))


def counted(model, inputs, forward=None):
    """(MACs, parameters) of a network, counted on the network."""
    return count_macs(model, inputs, forward).macs, count_params(model)


def closed_form(space, keep):
    """(MACs, parameters) of the subnet ``keep`` by the space's formula."""
    counts = torch.tensor([
        int(keep[space.layout.slice_of(u)].sum()) // unit.groups
        for u, unit in enumerate(space.units)
    ])
    return tuple(
        float(space.resource(counts, keep.double(), metric))
        for metric in ('macs', 'params'))


def assert_counts(subnet, space, keep, inputs, forward=None):
    """The formula gives what is counted on the subnet, to the last digit."""
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    macs, params = counted(subnet, inputs, forward)
    formula = closed_form(space, keep)
    assert (macs, params) == (formula[0] * first.shape[0], formula[1])


def assert_true(model,
                inputs,
                forward=None,
                number=4,
                count=True,
                bound=1e-5,
                **options):
    """Trace a network and compare all that its space says with the truth.

    Returns the space.
    """
    randomise(model)
    plain = outputs(model, inputs, forward)
    before = copy.deepcopy(model.state_dict())
    space = trace(model, inputs, forward=forward, **options)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    # A search begins at ratios of 0; importances then mean nothing.
    bank = Bank(space.layout)
    bank.importance = torch.rand(space.layout.E).double()
    bank.refresh()
    assert distance(
        plain,
        masked_outputs(model, space, bank.current.detach(), inputs,
                       forward)) < bound / 10
    for place, keep in enumerate(keeps(space, number)):
        assert difference(model, space, keep, inputs, forward) < bound
        if count and place in (0, number + 2):  # counting takes its time
            assert_counts(
                slice_model(model, space, keep), space, keep, inputs, forward)
    if count:
        full = keep_of(space, lambda unit: unit.size)
        assert_counts(model, space, full, inputs, forward)
    return space


def unit_table(space):
    """Name -> (kind, size, groups) of every unit."""
    return {u.name: (u.kind, u.size, u.groups) for u in space.units}


def reasons(space):
    """Module -> reason of everything that stays at full width."""
    return {f.module: f.reason for f in space.full_width}
