# Copyright (c) dms_razor contributors. All rights reserved.
"""Products of weights and masks against each mask for itself."""
import cpu_kernels
import pytest
import torch
from torch import nn

from dms_razor.masking import together as together_module
from dms_razor.masking.input_mask import InputMask
from dms_razor.masking.masks import Masks
from dms_razor.masking.products import (Chosen, Entry, Group, Vectors,
                                        entries_of, matrix_of)

LAST = torch.channels_last
#: Weight, and its masks: axis, index and groups; elements that scale it.
CASES = {
    'linear': ((5, 4), [(1, [0, 1, -1, 2], 1)], ()),
    'rows and columns': ((5, 4), [(1, [0, 1, -1, 2], 1),
                                  (0, [3, 4, 3, 4, -1], 1)], ()),
    'scaled': ((5, 4), [(1, [0, 1, -1, 2], 1)], (5, 6)),
    'scaled alone': ((5, 4), [], (5, )),
    'pairs': ((5, 4), [(1, [[0, 3], [1, -1], [2, 4], [-1, -1]], 1)], (6, )),
    'convolution': ((5, 4, 3, 3), [(1, [0, 1, -1, 2], 1)], (5, )),
    'grouped': ((6, 2, 3, 3), [(1, [0, 1, 2, -1, 3, 4], 3)], ()),
    'grouped rows': ((6, 2, 3, 3), [(1, [0, 1, 2, -1, 3, 4], 3),
                                    (0, [6, 5, 4, 3, 2, 1], 1)], (5, )),
    'depthwise': ((6, 1, 3, 3), [(1, [0, 1, 2, -1, 3, 4], 6)], (6, )),
    'two of a group': ((6, 1, 3), [(1, [0, 1, -1], 3)], ()),
    'vector': ((4, ), [(0, [0, 1, -1, 2], 1)], (5, )),
    'vector scaled': ((4, ), [], (5, )),
}


def made(name, format=torch.contiguous_format):
    shape, masks, scales = CASES[name]
    weight = torch.randn(shape, dtype=torch.float64)
    if len(shape) == 4:
        weight = weight.to(memory_format=format)
    return nn.Parameter(weight), [
        InputMask(axis, torch.tensor(index), groups)
        for axis, index, groups in masks
    ], scales


def one_by_one(weight, masks, scales, flat):
    read = Masks(flat)
    for mask in masks:
        weight = mask(weight, read)
    return weight * read.product(scales) if scales else weight


def together(weights, flat, kernels=None, out=torch.float64):
    """What a group of all of them makes."""
    vectors, group = Vectors(), Group(out)
    for weight, masks, scales in weights:
        entries = entries_of(weight, masks, scales, vectors)
        group.add(weight, entries)
    group.finish(kernels)
    read = torch.cat([flat.new_ones(1), flat])
    chosen = read[vectors.index().to(flat.device)].prod(0)
    return group(chosen)


@pytest.mark.parametrize('format', (torch.contiguous_format, LAST))
def test_all_as_one_by_one(format):
    torch.manual_seed(0)
    flat = torch.rand(7, dtype=torch.float64, requires_grad=True)
    weights = [made(name, format) for name in CASES]
    expected = [one_by_one(*weight, flat) for weight in weights]
    found = together(weights, flat)
    grads = [torch.randn_like(out) for out in expected]
    leaves = [flat, *(weight for weight, _, _ in weights)]
    for one, other, weight in zip(found, expected, leaves[1:]):
        assert (one - other).abs().max() < 1e-12
        assert one.shape == weight.shape
    for one, other in zip(
            torch.autograd.grad(found, leaves, grads),
            torch.autograd.grad(expected, leaves, grads)):
        assert (one - other).abs().max() < 1e-12


def test_masks_that_are_multiplied():
    """An element may be read twice, and none be read."""
    flat = torch.rand(4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[1, 2, 0, 4], [2, 2, 3, 0]])
    found = Chosen.apply(flat, index)
    expected = [
        flat[0] * flat[1], flat[1] * flat[1], flat[2].clone(), flat[3].clone()
    ]
    assert torch.allclose(found, torch.stack(expected))
    assert torch.autograd.gradcheck(lambda x: Chosen.apply(x, index), flat)
    assert torch.autograd.gradgradcheck(lambda x: Chosen.apply(x, index), flat)
    # A gradient that depends on nothing, and is differentiated all the same.
    first, = torch.autograd.grad(found.sum(), flat, create_graph=True)
    second, = torch.autograd.grad(first[0], flat)
    assert second.tolist() == [0, 1, 0, 0]


def test_what_is_no_matrix():
    assert matrix_of(torch.zeros(4, 6)) == (4, 6, 1)
    assert matrix_of(torch.zeros(4, 6, 2, 3)) == (4, 36, 6)
    assert matrix_of(torch.zeros(4, 6, 2,
                                 3).to(memory_format=LAST)) == (4, 36, 1)
    assert matrix_of(torch.zeros(7)) == (1, 7, 1)
    assert matrix_of(torch.zeros(6, 4).T) is None
    assert matrix_of(torch.zeros(())) is None
    vectors = Vectors()
    third = InputMask(2, torch.tensor([0, 1]))
    assert entries_of(torch.zeros(3, 4, 2), [third], (), vectors) is None
    assert vectors.length == 1


def test_an_entry_says_where_masks_are():
    entry = Entry(0, (2, 6), 3, 2, cols=1, col_step=1)
    masks = torch.tensor([1., 2., 3.])
    out = entry.masked(torch.ones(2, 6), masks)
    assert out[0].tolist() == [2, 2, 2, 3, 3, 3]


WITH_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='there is no GPU')


@pytest.mark.parametrize('device, dtype, out, bound', (
    ('cpu', torch.float64, torch.float64, 1e-12),
    ('cpu', torch.float32, torch.float32, 1e-5),
    *(pytest.param('cuda', *given, marks=WITH_GPU) for given in (
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.float32, torch.float16, 2e-3),
        (torch.bfloat16, torch.bfloat16, 2e-2),
    )),
))
@pytest.mark.parametrize('format', (torch.contiguous_format, LAST))
@pytest.mark.parametrize('threads', (1, 3))
def test_kernels(format, device, dtype, out, bound, threads, with_threads):
    """Against operations of PyTorch in float64."""
    with_threads(threads)
    kernels = together_module.fused_weights if device == 'cuda' else \
        together_module.compiled_weights
    torch.manual_seed(0)
    flat = torch.rand(7, dtype=torch.float64)
    weights = [made(name, format) for name in CASES]
    wide = torch.randn(300, 520, dtype=torch.float64)
    index = torch.arange(520) % 8 - 1
    weights.append((nn.Parameter(wide), [InputMask(1, index)], (3, )))
    grads = [torch.randn_like(weight) for weight, _, _ in weights]

    def run(device, kind, product, kernels):
        masks = flat.to(device, torch.promote_types(kind, torch.float32))
        masks.requires_grad_()
        moved = [(nn.Parameter(weight.detach().to(dtype).to(device, kind)),
                  own, scales) for weight, own, scales in weights]
        found = together(moved, masks, kernels, product)
        leaves = [masks, *(weight for weight, _, _ in moved)]
        used = [one for n, one in enumerate(found) if n != 1]
        given = [
            grad.to(out).to(device, product) for n, grad in enumerate(grads)
            if n != 1
        ]
        found_grads = torch.autograd.grad(
            used, leaves, given, allow_unused=True)
        assert found_grads[2] is None, 'of a layer that did not run'
        return *found, *(x for x in found_grads if x is not None)

    expected = run('cpu', torch.float64, torch.float64, None)
    for one, other in zip(run(device, dtype, out, kernels), expected):
        difference = one.detach().cpu().double() - other
        assert difference.abs().max() < bound * other.abs().max()


def test_masks_of_another_type_than_the_weights():
    """As each layer would read them: in the type of its weight."""
    flat = torch.rand(7, dtype=torch.float64, requires_grad=True)
    weight, masks, scales = made('rows and columns')
    weight = nn.Parameter(weight.detach().float())
    found, = together([(weight, masks, scales)], flat,
                      together_module.compiled_weights, torch.float32)
    expected = one_by_one(weight, masks, scales, flat)
    assert torch.allclose(found, expected)
    for one, other in zip(
            torch.autograd.grad(found.square().sum(), (flat, weight)),
            torch.autograd.grad(expected.square().sum(), (flat, weight))):
        assert one.dtype == other.dtype and torch.allclose(one, other)


@pytest.mark.parametrize('kernels', ('cpu_kernels', 'compiled'))
@pytest.mark.parametrize('use', (torch.sgn, torch.neg, lambda x: x[..., ::2]))
def test_gradients_that_do_not_lie_in_memory(use, kernels):
    """Such as those of a sign, which are zero and nowhere."""
    kernels = cpu_kernels if kernels == 'cpu_kernels' else \
        together_module.compiled_weights
    flat = torch.rand(7, dtype=torch.float64, requires_grad=True)
    weight, masks, scales = made('rows and columns')
    found, = together([(weight, masks, scales)], flat, kernels)
    expected = one_by_one(weight, masks, scales, flat)
    for one, other in zip(
            torch.autograd.grad(use(found).sum(), (flat, weight)),
            torch.autograd.grad(use(expected).sum(), (flat, weight))):
        assert torch.allclose(one, other)
