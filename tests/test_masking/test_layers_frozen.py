# Copyright (c) dms_razor contributors. All rights reserved.
"""Linear layers whose weights rest: their input is masked."""
import pytest
import torch
from language_nets import WORDS, decoder
from torch import nn
from transformer_nets import tiny_vit

from dms_razor import Search
from tools._kept import kept_bytes


def search_of(net, **settings):
    return Search(
        net, WORDS[:1], '70%', metric='params', total_steps=9, **settings)


def gradient(net, search):
    search.bank.ratios = torch.full_like(search.bank.ratios, .35)
    search.bank.refresh()
    out = net(WORDS)
    grad, = torch.autograd.grad(out.square().sum(), search.bank.masks)
    return out.detach(), grad


@pytest.mark.parametrize('key_heads', [2, 4])
def test_the_same_outputs_and_gradients_as_with_masked_weights(key_heads):
    """All kinds of units: heads, widths through norms, depth."""
    found = []
    for rests in (False, True):
        net = decoder(heads=4, key_heads=key_heads)
        search = search_of(net.requires_grad_(not rests))
        assert {u.kind
                for u in search.space.units} >= {'heads', 'width', 'depth'}
        found.append(gradient(net, search))
    (out, grad), (resting, other) = found
    assert torch.allclose(out, resting, atol=1e-12)
    assert grad.abs().max() > 1e-3
    assert torch.allclose(grad, other, rtol=1e-9, atol=1e-12)


def test_rows_are_masked_on_the_weight():
    """Dims of heads are rows of one matrix of queries, keys and values."""
    found = []
    for rests in (False, True):
        torch.manual_seed(0)
        net, image = tiny_vit()
        search = Search(
            net.double().requires_grad_(not rests),
            image.double(),
            '70%',
            total_steps=9)
        assert {'qk', 'v'} <= {u.kind for u in search.space.units}
        search.bank.ratios = torch.full_like(search.bank.ratios, .35)
        search.bank.refresh()
        out = net(image.double())
        out = out[0] if isinstance(out, tuple) else out
        found.append(
            (out.detach(),
             *torch.autograd.grad(out.square().sum(), search.bank.masks)))
    (out, grad), (resting, other) = found
    assert torch.allclose(out, resting, atol=1e-12)
    assert grad.abs().max() > 0
    assert torch.allclose(grad, other, rtol=1e-9, atol=1e-12)


def test_it_follows_what_trains_now():
    """No weight-sized product while it rests, and no masked input later."""
    net = decoder()
    search = search_of(net)
    down = net.layers[0].down
    expected = gradient(net, search)
    down.weight.requires_grad_(False)
    seen = []
    forward = nn.Linear.forward

    def recorded(self, x):
        if self is down:
            seen.append(self.weight is self._parameters['weight'])
        return forward(self, x)

    try:
        nn.Linear.forward = recorded
        again = gradient(net, search)
        down.weight.requires_grad_(True)
        gradient(net, search)
    finally:
        nn.Linear.forward = forward
    assert seen == [True, False]
    assert torch.allclose(expected[1], again[1])


def test_an_input_by_its_name():
    net = decoder(layers=1)
    net.requires_grad_(False)
    search = search_of(net)
    search.bank.ratios = torch.full_like(search.bank.ratios, .35)
    search.bank.refresh()
    down, x = net.layers[0].down, torch.rand(2, 20).double()
    assert torch.equal(down(x), down(input=x))
    mask = search.bank.masks[search.space.layout.slice_of(
        search.space.layout.index('layers.0.gate'))]
    block = search.bank.masks[-1]
    assert mask.min() < .9
    assert torch.allclose(
        down(x), x * mask @ down._parameters['weight'].T * block)


def test_bytes_kept_for_backward():
    """Ratios alone keep less than a training of the weights does."""
    words = torch.randint(0, 31, (4, 16))
    plain = decoder(layers=3)
    whole = kept_bytes(plain, lambda: plain(words).sum())
    net = decoder(layers=3).requires_grad_(False)
    search_of(net, depth=False, units={'words': dict(fixed=True)})
    resting = kept_bytes(net, lambda: net(words).sum())
    assert 0 < resting <= 1.05 * whole
