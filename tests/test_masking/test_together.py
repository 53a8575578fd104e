# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked weights made at the beginning of a pass, against layer by layer."""
import copy
import gc
import io
import threading
import weakref

import cpu_kernels
import pytest
import torch
from language_nets import WORDS, decoder
from torch import nn
from torch.utils.checkpoint import checkpoint
from toy_nets import plain_net

from dms_razor import Search
from dms_razor.masking import layers, together
from tools.compare.networks import ResNet, VisionTransformer

IMAGES = torch.randn(4, 3, 16, 16, dtype=torch.float64)


@pytest.fixture(params=('plain', 'kernels', 'compiled'))
def usable(monkeypatch, request):
    """As on a GPU, with operations of PyTorch for all, or for kernels; or
    with the loops that there are for a CPU."""

    def use(usual=True):
        monkeypatch.setattr(together, 'usable', lambda flat: usual)

    kernels = {
        'plain': None,
        'kernels': cpu_kernels
    }.get(request.param, together.compiled_weights)
    if request.param == 'compiled':
        monkeypatch.setattr(kernels, 'LEAST', 0)
    use()
    monkeypatch.setattr(together, 'kernels_for', lambda flat: kernels)
    return use


class Grouped(nn.Module):
    """Grouped and depthwise convolutions, and a norm of groups."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, bias=False)
        self.grouped = nn.Conv2d(12, 16, 3, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.norm = nn.GroupNorm(4, 16)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = torch.tanh(self.grouped(torch.tanh(self.stem(x))))
        return self.last(self.norm(self.depthwise(x))).mean((2, 3))


class Checkpointed(nn.Module):
    """A network whose middle runs again in backward."""

    def __init__(self, reentrant):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
        self.last = nn.Conv2d(8, 4, 1)
        self.reentrant = reentrant

    def forward(self, x):
        x = checkpoint(
            self.middle, self.first(x), use_reentrant=self.reentrant)
        return self.last(x).mean((2, 3))


NETS = {
    'resnet': (lambda: ResNet((8, 16), (2, 2), classes=4), IMAGES),
    'toy': (plain_net, IMAGES[..., :8, :8]),
    'grouped': (Grouped, IMAGES),
    'vit': (lambda: VisionTransformer(24, 2, 4, 16, 4, classes=4), IMAGES),
    'llama': (decoder, WORDS),
    'checkpoint': (lambda: Checkpointed(False), IMAGES),
    'reentrant': (lambda: Checkpointed(True), IMAGES),
}


def searched(name, last=False):
    """A network in the middle of a search, and what it takes."""
    torch.manual_seed(0)
    make, data = NETS[name]
    net = make().double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=.1)
    if last:
        net.to(memory_format=torch.channels_last)
    search = Search(net.eval(), data[:1], '60%', total_steps=9)
    search.bank.importance = torch.rand_like(search.bank.importance)
    search.bank.ratios += .3
    search.bank.refresh()
    return search, data


def result_of(model, data):
    out = model(data)
    out = getattr(out, 'logits', out)
    return out[-1] if isinstance(out, (tuple, list)) else out


def gradients(search, data, passes=1):
    """Of masks and weights; a loss that does not know rows from another."""
    search.model.zero_grad()
    search.bank.drop_gradient()
    losses = [
        result_of(search.model, data).square().sum() for _ in range(passes)
    ]
    sum(losses).backward()
    found = dict(search.model.named_parameters(), masks=search.bank.masks)
    return {name: p.grad for name, p in found.items() if p.grad is not None}


def same(one, other, bound=1e-10):
    assert one.keys() == other.keys()
    for name in one:
        scale = other[name].abs().max().clamp(min=1e-6)
        assert (one[name] - other[name]).abs().max() < bound * scale, name


@pytest.mark.parametrize('name, last', [
    *((name, False) for name in NETS),
    *((name, True)
      for name in ('resnet', 'grouped', 'checkpoint', 'reentrant'))
])
def test_gradients_are_those_of_layer_by_layer(name, last, usable,
                                               monkeypatch):
    usable(False)
    search, data = searched(name, last)
    expected = gradients(search, data)
    usable()
    alone = []
    show = layers.LayerMasks.show
    monkeypatch.setattr(
        layers.LayerMasks, 'show',
        lambda self, *args: alone.append(self) or show(self, *args))
    for _ in range(2):
        same(gradients(search, data), expected)
    # What is checkpointed in the old way makes its own, both times.
    assert len(alone) == (8 if name == 'reentrant' else 0)
    same(
        gradients(search, data, passes=2), {
            name: 2 * grad
            for name, grad in expected.items()
        })


def test_it_is_not_taken_for_another_moment(usable):
    """Other masks, other modes, other weights, layers on their own."""
    search, data = searched('resnet')
    model = search.model
    layer = next(
        m for m in model.modules()
        if isinstance(m, layers.MaskedLayer) and isinstance(m, nn.Conv2d))
    x = torch.randn(1, layer.in_channels, 5, 5).double()
    first = model(data)
    alone = layer(x)
    with search.masks('off'):
        whole = layer(x)
        assert not torch.allclose(alone, whole)
        assert not torch.allclose(model(data), first)
    search.bank.ratios += .2
    search.bank.refresh()
    assert not torch.allclose(layer(x), alone)
    assert not torch.allclose(model(data), first)
    second = model(data)
    with torch.no_grad():
        assert torch.allclose(model(data), second)
    layer.weight = nn.Parameter(2 * layer.weight.detach())
    changed = model(data)
    assert not torch.allclose(changed, second)
    changed.sum().backward()
    assert layer.weight.grad is not None


def test_copies_and_files_are_none_of_it(usable):
    search, data = searched('resnet')
    out = search.model(data)
    twin = copy.deepcopy(search.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert not torch.allclose(twin(data), out)
    twin(data).sum().backward()
    assert all(p.grad is None for p in search.model.parameters())
    file = io.BytesIO()
    with pytest.warns(UserWarning, match='the whole supernet'):
        torch.save(search.model, file)
    assert b'together' not in file.getvalue()
    file.seek(0)
    again = torch.load(file, weights_only=False)
    again(data).sum().backward()
    model = search.close()
    assert not model._forward_hooks and not model._forward_pre_hooks


class Failing(nn.Module):
    """Two layers; the second pass ends between them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.fails = False

    def forward(self, x):
        x = torch.tanh(self.first(x))
        if self.fails:
            raise MemoryError
        return self.last(x).mean((2, 3))


def test_a_failed_pass_leaves_nothing(usable):
    model = Failing().double()
    search = Search(model, IMAGES[:1], '60%', total_steps=9)
    search.bank.ratios += .3
    search.bank.refresh()
    model.fails = True
    with pytest.raises(MemoryError):
        model(IMAGES)
    for _ in range(2):
        out = model.last(torch.ones(1, 8, 1, 1).double())
        out.sum().backward()
    with torch.no_grad():
        model.last.weight.zero_()
        model.last.bias.zero_()
        assert not model.last(torch.ones(1, 8, 1, 1).double()).any()


@pytest.mark.parametrize('usable', ('kernels', ), indirect=True)
@pytest.mark.parametrize('how', ('scaled', 'replaced', 'data'))
def test_weights_that_change_while_the_network_runs(usable, how):
    """As those that a parent's forward normalises. (Products by PyTorch's
    own operations would notice that weights were scaled in place.)"""

    class Changing(Failing):

        def forward(self, x):
            with torch.no_grad():
                if not self.fails:
                    pass
                elif how == 'scaled':
                    self.last.weight.mul_(2)
                elif how == 'data':
                    self.last.weight.data = 2 * self.last.weight.data
                else:
                    self.last.weight = nn.Parameter(2 * self.last.weight)
            return self.last(torch.tanh(self.first(x))).mean((2, 3))

    model = Changing().double()
    search = Search(model, IMAGES[:1], '60%', total_steps=9)
    model.fails = True  # from now on
    found = []
    for usual in (True, False):
        usable(usual)
        out = model(IMAGES)
        out.sum().backward()
        found.append((out.detach() - model.last.bias, model.last.weight.grad))
        model.last.weight.grad = None
    assert torch.allclose(2 * found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1])
    assert search.bank.masks.grad is not None


@pytest.mark.parametrize('usable', ('kernels', 'compiled'), indirect=True)
@pytest.mark.parametrize('how', ('type', 'layout', 'in place'))
def test_weights_that_change_before_backward(usable, how):
    """Gradients would be those of other weights, or of no numbers at all."""
    search, data = searched('resnet')
    loss = result_of(search.model, data).square().sum()
    # Those alone: of others PyTorch itself would tell first.
    masked = [
        weight for layer in search.model.modules()
        if isinstance(layer, layers.MaskedLayer)
        for weight in layer._dms_masks.ready.parameters.values()
    ]
    with torch.no_grad():
        for weight in masked:
            if how == 'type':
                weight.data = weight.data.float()
            elif how == 'layout' and weight.dim() == 4:
                weight.data = weight.data.transpose(0, 1).contiguous() \
                    .transpose(0, 1)
            elif how == 'in place':
                weight.mul_(2)
    with pytest.raises(RuntimeError, match='weights of the network were ch'):
        loss.backward()


@pytest.mark.parametrize('moment', ('begin', 'middle'))
@pytest.mark.parametrize('graded', (True, False))
def test_two_threads_in_one_network(usable, graded, moment, monkeypatch):
    """The second begins while the first is on its way, and ends after it."""

    class Waiting(nn.Module):

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            x = self.norm(self.first(x).movedim(1, -1)).movedim(-1, 1)
            if threading.current_thread() in threads:
                reached.set()
                assert done.wait(60)
            elif moment == 'middle':
                start()
            return self.last(x).mean((2, 3))

    threads, others = [], []
    reached, done = threading.Event(), threading.Event()

    def other():
        with torch.set_grad_enabled(graded):
            others.append(model(IMAGES).detach())

    def start():
        if wanted and not threads:  # once
            threads.append(threading.Thread(target=other))
            threads[0].start()
            assert reached.wait(60)

    begin = together.Ready.begin
    monkeypatch.setattr(
        together.Ready, 'begin',
        lambda ready: begin(ready) or moment == 'begin' and start())
    model, wanted = Waiting().double(), []
    search = Search(model, IMAGES[:1], '60%', total_steps=9)
    search.bank.ratios += .3
    search.bank.refresh()
    usable(False)
    expected, result = gradients(search, IMAGES), model(IMAGES).detach()
    usable()
    wanted.append(True)
    same(gradients(search, IMAGES), expected)
    done.set()
    threads[0].join()
    assert torch.allclose(others[0], result, atol=1e-12)


@pytest.mark.parametrize('usable', ('compiled', ), indirect=True)
def test_a_norm_keeps_its_epsilon(usable):
    """Though it is not asked by its own forward."""

    class Net(nn.Module):

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
            self.norm = nn.LayerNorm(6, eps=.3)

        def forward(self, x):
            return self.last(self.norm(self.first(x)))

    net, x = Net().double(), torch.randn(3, 4, 6, dtype=torch.float64)
    nn.init.normal_(net.norm.weight), nn.init.normal_(net.norm.bias)
    plain = net(x)
    Search(net, x[:1], '60%', total_steps=9)
    assert torch.allclose(net(x), plain)
    assert net.norm._dms_masks.ready.made is not None
    assert net.norm._dms_masks.plain_norm


def test_two_backwards_of_one_pass(usable):
    """Of parts that have nothing in common but the masks of a pass."""

    class Towers(nn.Module):

        def __init__(self):
            super().__init__()
            self.one, self.two = (
                nn.Sequential(
                    nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 1))
                for _ in range(2))

        def forward(self, x):
            return torch.stack(
                [tower(x).mean((2, 3))
                 for tower in (self.one,
                               self.two)]) if self.training else (self.one(x),
                                                                  self.two(x))

    model = Towers().double()
    search = Search(model, IMAGES[:1], '60%', total_steps=9)
    search.bank.ratios += .3
    search.bank.refresh()
    model.eval()
    first, second = model(IMAGES)
    first.sum().backward()
    second.sum().backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad()
    usable(False)
    sum(out.sum() for out in model(IMAGES)).backward()
    same(found, {n: p.grad for n, p in model.named_parameters()})


def test_a_penalty_of_gradients(usable):
    """Gradients that are differentiated themselves."""
    found = []
    for usual in (True, False):
        usable(usual)
        search, data = searched('grouped')
        images = data.clone().requires_grad_()
        grad, = torch.autograd.grad(
            search.model(images).sum(), images, create_graph=True)
        grad.square().sum().backward()
        found.append(
            dict({
                n: p.grad
                for n, p in search.model.named_parameters()
            },
                 masks=search.bank.masks.grad))
    one, other = ({n: g for n, g in x.items() if g is not None} for x in found)
    same(one, other)


def test_many_weights_are_masked_one_by_one(usable, monkeypatch):
    search, data = searched('resnet')
    expected = gradients(search, data)
    monkeypatch.setattr(together, 'MOST', 10)
    for parameter in search.model.parameters():
        parameter.data = parameter.data.clone()
    same(gradients(search, data), expected)
    assert all(layer._dms_masks.ready is None
               for layer in search.model.modules()
               if isinstance(layer, layers.MaskedLayer))


@pytest.mark.parametrize('usable', ('compiled', ), indirect=True)
def test_few_weights_are_masked_one_by_one(usable, monkeypatch):
    monkeypatch.setattr(together.compiled_weights, 'LEAST', 10**5)
    search, data = searched('resnet')
    gradients(search, data)
    assert all(layer._dms_masks.ready is None
               for layer in search.model.modules()
               if isinstance(layer, layers.MaskedLayer))


@pytest.mark.parametrize('usable', ('compiled', ), indirect=True)
@pytest.mark.parametrize('dtype, cast', ((torch.bfloat16, None),
                                         (torch.float32, torch.bfloat16)))
def test_half_precision_on_a_cpu(usable, dtype, cast, monkeypatch):
    """Loops know no half precision: layers of such weights mask themselves,
    and those of others cast for themselves, whatever a GPU would do."""
    search, data = searched('resnet')
    model, data = search.model.to(dtype), data.to(dtype)
    monkeypatch.setattr(together, '_autocast', lambda: torch.float16)
    found = []
    for usual in (True, False):
        usable(usual)
        with torch.autocast('cpu', cast, enabled=cast is not None):
            out = model(data).float()
        grads = torch.autograd.grad(out.square().sum(),
                                    list(model.parameters()))
        found.append((out, *grads))
    for one, other in zip(*found):
        assert torch.allclose(
            one, other, rtol=.1, atol=float(other.detach().abs().max()) * .05)


def test_several_pieces(usable, monkeypatch):
    search, data = searched('resnet')
    expected = gradients(search, data)
    made, group = [], together.Group
    monkeypatch.setattr(together, 'PIECE', 2000)
    monkeypatch.setattr(together, 'Group',
                        lambda out: made.append(group(out)) or made[-1])
    for parameter in search.model.parameters():
        parameter.data = parameter.data.clone()
    same(gradients(search, data), expected)
    assert len(made) > 1
    assert all(one.size <= 3000 or len(one.weights) == 1 for one in made)


def test_saved_tensors_that_are_kept_elsewhere(usable):
    """As on the CPU while a GPU works; the next step reads new weights."""
    search, data = searched('grouped')
    optimizer = torch.optim.SGD(search.model.parameters(), .1)
    for _ in range(3):
        hooks = torch.autograd.graph.saved_tensors_hooks(
            torch.clone, torch.clone)
        with hooks:
            gradients(search, data)
        optimizer.step()
        with torch.no_grad():
            expected = search.model(data)
        assert torch.allclose(search.model(data), expected)


def test_traced_by_torch(usable):
    """As who counts or draws a network does."""
    search, data = searched('grouped')
    expected = gradients(search, data)
    with pytest.raises(RuntimeError, match='requires grad as a constant'):
        torch.jit.trace(search.model, data, check_trace=False)
    same(gradients(search, data), expected)


def test_another_autocast_within(usable):

    class Head(Failing):

        def forward(self, x):
            x = torch.tanh(self.first(x))
            with torch.autocast('cpu', enabled=False):
                return self.last(x.float()).mean((2, 3))

    model = Head()
    search = Search(model, IMAGES[:1].float(), '60%', total_steps=9)
    search.bank.ratios += .3
    search.bank.refresh()
    found = []
    for usual in (True, False):
        usable(usual)
        with torch.autocast('cpu', torch.bfloat16):
            out = model(IMAGES.float())
        search.bank.drop_gradient()
        out.sum().backward()
        found.append((out, search.bank.masks.grad))
    for one, other in zip(*found):
        assert torch.allclose(one, other, rtol=.05, atol=.05)


@pytest.mark.parametrize('kind', ('functional', 'rows', 'batched'))
def test_transforms_of_torch_func(usable, kind):
    model, data, found = Failing().double(), IMAGES, []
    search = Search(model, data[:1], '60%', total_steps=9)
    search.bank.ratios += .3
    search.bank.refresh()
    names = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters,
                                          (x, )).square().sum()

    for usual in (True, False):
        usable(usual)
        if kind == 'functional':
            grads = torch.func.grad(loss)(names, data)
        elif kind == 'rows':
            grads = dict(x=torch.func.vmap(lambda x: model(x[None]))(data))
        else:
            out = model(data)
            grads = dict(
                x=torch.autograd.grad(
                    out,
                    model.last.weight,
                    torch.eye(out.numel()).double().view(-1, *out.shape),
                    is_grads_batched=True)[0])
        found.append(grads)
    same(*found)


def test_a_layer_that_is_checkpointed_once_and_called_once(usable):

    class Twice(nn.Module):

        def __init__(self):
            super().__init__()
            self.first, self.middle, self.last = (nn.Conv2d(3, 8, 3),
                                                  nn.Conv2d(8, 8, 1),
                                                  nn.Conv2d(8, 4, 1))

        def forward(self, x):
            x = checkpoint(self.middle, self.first(x), use_reentrant=True)
            return self.last(self.middle(x)).mean((2, 3))

    search = Search(Twice().double(), IMAGES[:1], '60%', total_steps=9)
    found = []
    for usual in (True, False):
        usable(usual)
        found.append(gradients(search, IMAGES))
    same(*found)


def test_nothing_is_kept_when_all_is_gone(usable):
    """Of a search that ends after a forward, with and without close()."""
    for closes in (True, False):
        search, data = searched('grouped')
        out = search.model(data)
        layer = search.model.grouped
        product = weakref.ref(layer._dms_masks.ready.made[0]['weight'])
        weight = weakref.ref(layer.weight)
        if closes:
            search.close()
        del search, out, layer
        gc.collect()
        assert product() is None and weight() is None
