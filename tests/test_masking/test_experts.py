# Copyright (c) dms_razor contributors. All rights reserved.
"""The softmax of a router under masks, against the formula."""
import pytest
import torch
import torch.nn.functional as F
from expert_nets import WORDS, mixture
from torch import nn

from dms_razor import Search
from dms_razor.masking import attach
from dms_razor.masking.experts import SoftmaxInterceptor, masked_softmax
from dms_razor.subnet import build_subnet
from dms_razor.trace import trace


def scores(*shape, dtype=torch.float64):
    torch.manual_seed(0)
    return 2 * torch.randn(*shape, dtype=dtype)


MASK = torch.tensor([.9, 0., 1., 1e-7, .4], dtype=torch.float64)


def formula(x, mask):
    weighted = mask * x.exp()
    return weighted / weighted.sum(-1, keepdim=True)


def test_it_is_the_formula_with_its_gradients():
    x, mask = scores(3, 5).requires_grad_(), MASK.clone().requires_grad_()
    grad = scores(3, 5) + 1
    found, expected = masked_softmax(x, mask, -1), formula(x, mask)
    assert torch.allclose(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(
            torch.autograd.grad(found, (x, mask), grad),
            torch.autograd.grad(expected, (x, mask), grad)):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)
        assert torch.isfinite(one).all()


def test_gradients_against_finite_differences():
    inputs = scores(3, 4).requires_grad_(), (.1 + MASK[:4]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, m: masked_softmax(x, m, 1),
                                    inputs)
    assert torch.autograd.gradgradcheck(lambda x, m: masked_softmax(x, m, 1),
                                        inputs)


@pytest.mark.parametrize('dim', [0, 1, -1])
def test_hard_masks_are_the_narrow_softmax(dim):
    kept = [0, 2, 4]
    mask = torch.tensor([1., 0, 1, 0, 1]).double()
    x = scores(5, 5)
    found = masked_softmax(x, mask, dim)
    narrow = x.movedim(dim, -1)[..., kept].softmax(-1)
    assert torch.allclose(
        found.movedim(dim, -1)[..., kept], narrow, rtol=1e-13)
    assert int(found.movedim(dim, -1)[..., [1, 3]].count_nonzero()) == 0
    whole = masked_softmax(x, torch.ones(5).double(), dim)
    assert torch.allclose(whole, x.softmax(dim), rtol=1e-14)


@pytest.mark.parametrize('far', [50., 200., 1e4])
def test_what_is_removed_may_score_far_above_the_rest(far):
    x = torch.tensor([[far, 1., 2.]], requires_grad=True)
    mask = torch.tensor([0., 1, 1], requires_grad=True)
    found = masked_softmax(x, mask, -1)
    assert torch.allclose(found[0, 1:], torch.tensor([1., 2.]).softmax(0))
    assert float(found[0, 0].detach()) == 0
    found[0, 1].backward()
    assert torch.isfinite(mask.grad).all() and torch.isfinite(x.grad).all()
    assert float(mask.grad[0]) < 0 and float(x.grad[0, 0]) == 0


def test_a_soft_mask_may_be_tiny_where_its_score_is_large():
    """1e-7 of an expert that is 30 above the others is most of it."""
    x = torch.tensor([[30., 0.]])
    found = masked_softmax(x, torch.tensor([1e-7, 1.]), -1)
    assert torch.allclose(
        found.double(), formula(x.double(),
                                torch.tensor([1e-7, 1.]).double()))


@pytest.mark.parametrize('run', [
    lambda x: x.softmax(-1),
    lambda x: torch.softmax(x, 1, torch.float64),
    lambda x: torch.softmax(input=x, dim=-1),
    lambda x: F.softmax(x, dim=-1),
    lambda x: F.softmax(x, -1, 3, torch.float64),
    lambda x: F.softmax(x, dim=1, dtype=torch.float64),
    nn.Softmax(-1),
])
def test_every_form_of_it_is_masked(run):
    x = scores(3, 5)
    with SoftmaxInterceptor(MASK):
        found = run(x)
    assert torch.allclose(found, formula(x, MASK), rtol=1e-12)


def test_others_are_as_they_were():
    x = scores(3, 5)
    with SoftmaxInterceptor(MASK):
        assert torch.equal(x.softmax(0), torch.softmax(x, 0))
        assert torch.equal(x.exp(), torch.exp(x))


def test_low_precision_is_computed_in_float32():
    x = scores(3, 5).bfloat16()
    found = masked_softmax(x, MASK, -1)
    assert found.dtype == torch.bfloat16
    expected = formula(x.float(), MASK.float())
    assert torch.equal(found, expected.bfloat16())
    with SoftmaxInterceptor(MASK), torch.autocast('cpu', torch.bfloat16):
        found = F.softmax(x, dim=-1, dtype=torch.float)
    assert torch.allclose(found, expected, rtol=1e-6)


def test_a_router_that_has_run_has_read_its_masks():
    net = mixture()
    space = trace(net, WORDS, batch_size=2)
    reader = attach(net, space, lambda: torch.ones(space.layout.E).double())
    assert len(reader.unread_units(space)) == space.layout.U
    net.layers[0](net.words(WORDS))
    assert 'layers.0.mlp.gate.experts' not in reader.unread_units(space)
    assert 'layers.1.mlp.gate.experts' in reader.unread_units(space)
    net(WORDS)
    assert not reader.unread_units(space)


def test_experts_are_searched_and_exported(tmp_path):
    """All kinds under one budget; the export proves itself equal."""
    net = mixture(number=6)
    search = Search(
        net,
        WORDS[:1],
        '50%',
        metric='params',
        total_steps=8,
        units={
            '*.mlp.experts': dict(divisor=2),
            '*.gate.experts': dict(most=4)
        })
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    search.attach(optimizer)
    for _ in range(8):
        optimizer.zero_grad()
        search.loss(net(WORDS).square().mean()).backward()
        optimizer.step()
    export = search.export(tmp_path / 'subnet', picture=False)
    kept = {
        unit['name']: unit['kept']
        for unit in export.report.to_dict()['units']
    }
    assert 2 <= kept['layers.0.mlp.gate.experts'] <= 4
    size = sum(p.numel() for p in export.model.parameters())
    assert .4 < size / sum(p.numel() for p in net.parameters()) <= .5
    again = build_subnet(
        mixture(number=6), tmp_path / 'subnet' / 'subnet.json')
    assert [tuple(p.shape) for p in again.parameters()
            ] == [tuple(p.shape) for p in export.model.parameters()]
    assert 'experts' in (tmp_path / 'subnet' / 'report.md').read_text()


def test_an_expert_that_no_word_takes_goes_first(tmp_path):
    """One feature of all words is 1, and expert 3 scores it far below 0."""
    net = mixture(number=6, layers=1)
    with torch.no_grad():
        net.words.weight[:, 0] = 1
        net.layers[0].norm.weight.fill_(1)
        net.layers[0].mlp.gate.weight[:, 0] = 0
        net.layers[0].mlp.gate.weight[3] = 0
        net.layers[0].mlp.gate.weight[3, 0] = -30
    only = {'*.gate.experts': dict(choices=[5, 6])}
    search = Search(
        net,
        WORDS[:1],
        '95%',
        metric='params',
        total_steps=9,
        width=False,
        depth=False,
        units=only)
    optimizer = torch.optim.SGD(net.parameters(), 1e-6)
    search.attach(optimizer)
    for _ in range(9):
        optimizer.zero_grad()
        search.loss(net(WORDS).square().mean()).backward()
        optimizer.step()
    export = search.export(tmp_path / 'subnet', picture=False)
    rest = [0, 1, 2, 4, 5]
    assert torch.equal(export.model.layers[0].mlp.gate.weight,
                       net.layers[0].mlp.gate.weight[rest])
