# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches on a GPU against the same on a CPU; skipped where there is none."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor import Search
from dms_razor.masking.layers import MaskedLayer
from dms_razor.subnet import recalibrate
from tools.compare.networks import ResNet, VisionTransformer

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='there is no GPU')

NETWORKS = {
    'convolutions': lambda: ResNet((8, 16), (2, 2), classes=4),
    'transformer': lambda: VisionTransformer(24, 2, 4, 16, 4, classes=4),
}


def made(name, dtype=torch.float64):
    """A network with random numbers everywhere, and images for it."""
    torch.manual_seed(0)
    network = NETWORKS[name]().to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=.1)
    return network, torch.randn(16, 3, 16, 16, dtype=dtype)


def searched(network, images, device, steps=12, **settings):
    """A search after some steps of weights and ratios."""
    network, images = copy.deepcopy(network).to(device), images.to(device)
    labels = torch.arange(len(images), device=device) % 4
    search = Search(
        network, images[:1], '60%', total_steps=10, **{
            'lr': .1,
            **settings
        })
    optimizer = torch.optim.SGD(network.parameters(), .05, momentum=.9)
    search.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        search.loss(F.cross_entropy(network(images), labels)).backward()
        optimizer.step()
    return search, images


@pytest.mark.parametrize('name', NETWORKS)
def test_a_gpu_searches_what_a_cpu_does(name, tmp_path):
    network, images = made(name)
    one, _ = searched(network, images, 'cpu')
    other, on_gpu = searched(network, images, 'cuda')
    assert other.bank.masks.is_cuda and not other.bank.ratios.is_cuda
    assert (one.bank.ratios - other.bank.ratios).abs().max() < 1e-9
    assert (one.bank.masks - other.bank.masks.cpu()).abs().max() < 1e-9
    first = one.export(tmp_path / 'cpu', bn_data=[images])
    second = other.export(tmp_path / 'gpu', bn_data=[on_gpu])
    assert [unit['kept'] for unit in one.structure()
            ] == [unit['kept'] for unit in other.structure()]
    assert next(second.model.parameters()).is_cuda
    first, second = first.model.eval(), second.model.eval()
    with torch.no_grad():
        difference = first(images) - second(on_gpu).cpu()
        assert difference.abs().max() < 1e-9 * first(images).abs().max()


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_mixed_precision(name, dtype, tmp_path):
    network, images = made(name, torch.float32)
    network.to('cuda', memory_format=torch.channels_last)
    images = images.to('cuda', memory_format=torch.channels_last)
    labels = torch.arange(16, device='cuda') % 4
    search = Search(network, images[:1], '60%', total_steps=20)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    search.attach(optimizer)
    scaler = torch.amp.GradScaler('cuda', enabled=dtype == torch.float16)
    for _ in range(25):
        optimizer.zero_grad()
        with torch.autocast('cuda', dtype):
            loss = F.cross_entropy(network(images), labels)
        scaler.scale(search.loss(loss)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert search.bank.ratios.max() > .05
    export = search.export(tmp_path / 'subnet', bn_data=[images])
    assert export.report.to_dict()['macs']['counted'] <= search.target
    assert torch.isfinite(export.model.eval()(images)).all()


def test_state_moves_between_devices(tmp_path):
    network, images = made('convolutions')
    search, on_gpu = searched(network, images, 'cuda')
    torch.save(search.state_dict(), tmp_path / 'search.pt')
    plain = copy.deepcopy(network)
    other = Search(plain, images[:1], '60%', total_steps=10, lr=.1)
    other.load_state_dict(
        torch.load(
            tmp_path / 'search.pt', map_location='cpu', weights_only=True))
    assert torch.equal(other.bank.ratios, search.bank.ratios)
    assert torch.equal(other.bank.masks, search.bank.masks.cpu())
    # Masks go where the network goes, and a copy reads them elsewhere.
    other.model.cuda()
    assert other.bank.masks.is_cuda
    elsewhere = copy.deepcopy(other.model).cpu()
    assert other.bank.masks.is_cuda
    with torch.no_grad():
        found = other.model.eval()(on_gpu).cpu()
        difference = elsewhere.eval()(images) - found
    assert difference.abs().max() < 1e-9 * found.abs().max()


@pytest.mark.parametrize('wrapped', ('ddp', 'unused', 'fsdp'))
@pytest.mark.parametrize('name', NETWORKS)
def test_wrapped_for_several_gpus(name, wrapped, tmp_path):
    """One rank alone: the same as without what sends gradients."""
    import torch.distributed as dist
    network, images = made(name)
    one, _ = searched(network, images, 'cuda')
    images = images.cuda()
    labels = torch.arange(len(images), device='cuda') % 4
    search = Search(
        copy.deepcopy(network).cuda(),
        images[:1],
        '60%',
        total_steps=10,
        lr=.1)
    dist.init_process_group(
        'nccl', f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = search.model
        if wrapped == 'fsdp':
            from torch.distributed.fsdp import fully_shard
            fully_shard(model)
        else:
            model = nn.parallel.DistributedDataParallel(
                model, [0], find_unused_parameters=wrapped == 'unused')
        optimizer = torch.optim.SGD(model.parameters(), .05, momentum=.9)
        search.attach(optimizer)
        for _ in range(12):
            optimizer.zero_grad()
            search.loss(F.cross_entropy(model(images), labels)).backward()
            optimizer.step()
        assert (one.bank.ratios - search.bank.ratios).abs().max() < 1e-9
        ready = [
            layer._dms_masks.ready is not None
            for layer in search.model.modules()
            if isinstance(layer, MaskedLayer)
        ]
        assert all(ready) if wrapped != 'fsdp' else not any(ready)
    finally:
        dist.destroy_process_group()


class Towers(nn.Module):
    """Two parts that share nothing; one does not want autocast."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (
            nn.Sequential(
                nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 40, 3, groups=2),
                nn.ReLU(), nn.Conv2d(40, 4, 1)) for _ in range(2))

    def forward(self, x):
        first = self.one(x).mean((2, 3))
        with torch.autocast('cuda', enabled=False):
            return first, self.two(x.float()).mean((2, 3))


@pytest.mark.parametrize('amp', (False, True))
def test_a_pass_in_unusual_ways(amp, monkeypatch):
    """Backward in parts, tensors kept on the CPU, weights that moved."""
    from dms_razor.masking import together
    torch.manual_seed(0)
    model, images = Towers().cuda(), torch.randn(4, 3, 16, 16, device='cuda')
    search = Search(model, images[:1], '60%', total_steps=10)
    search.bank.ratios += .3
    search.bank.refresh()
    found = []
    for usual in (True, False):
        if not usual:
            monkeypatch.setattr(together, 'usable', lambda flat: False)
        for _ in range(2):
            model.zero_grad()
            search.bank.drop_gradient()
            with torch.autograd.graph.save_on_cpu(), torch.autocast(
                    'cuda', enabled=amp):
                one, two = model(images)
            one.float().square().sum().backward()
            two.square().sum().backward()
        found.append(
            dict({
                n: p.grad
                for n, p in model.named_parameters()
            },
                 masks=search.bank.masks.grad))
    bound = 2e-2 if amp else 1e-5
    for name, other in found[1].items():
        difference = (found[0][name] - other).abs().max()
        assert difference <= bound * other.abs().max(), name
    with pytest.raises(RuntimeError):
        torch.jit.trace(model, images, check_trace=False)
    model(images)[1].sum().backward()
    model.to(memory_format=torch.channels_last)
    sum(out.sum() for out in model(images)).backward()


def test_narrowing_and_statistics():
    from dms_razor.baselines import narrow
    network, images = made('convolutions', torch.float32)
    network, images = network.cuda(), images.cuda()
    labels = torch.arange(16, device='cuda') % 4
    for method in ('uniform', 'l1', 'taylor', 'random'):
        search = Search(network, images[:1], '60%', total_steps=10)
        given = dict(
            batches=[(images, labels)],
            loss=lambda model, batch: F.cross_entropy(
                model(batch[0]), batch[1])) if method == 'taylor' else {}
        narrow(search, method, **given)
        assert search.current(hard=True) <= search.target
        search.close()
    recalibrate(network, [images])
    assert all(
        torch.isfinite(norm.running_var).all() for norm in network.modules()
        if isinstance(norm, nn.BatchNorm2d))


def test_written_files(tmp_path):
    pytest.importorskip('onnx')
    network, images = made('convolutions', torch.float32)
    search, on_gpu = searched(network, images, 'cuda')
    export = search.export(tmp_path / 'subnet', bn_data=[on_gpu])
    export.torchscript(tmp_path / 'subnet.pt')
    export.onnx(tmp_path / 'subnet.onnx')


@pytest.mark.parametrize('dtype', (torch.float32, torch.float16))
@pytest.mark.parametrize('dims', [(31, 32), (32, 31), (5, 3), (30, 30),
                                  (32, 32), (64, 13)])
@pytest.mark.parametrize('heads', (1, 5, 6))
def test_attention_of_any_dims(dtype, dims, heads):
    """Fused, at any dims and places in memory, forward and backward."""
    from dms_razor.adapters.attention import attend, split_heads
    torch.manual_seed(0)
    qk, v = dims
    qkv = torch.randn(2, 9, heads * (2 * qk + v), device='cuda', dtype=dtype)
    qkv.requires_grad_()
    q, k, values = split_heads(qkv, heads, qk, v)
    weight = (q.double() @ k.double().mT * .3).softmax(-1)
    expected = weight @ values.double()
    grad = torch.randn_like(expected)
    wanted, = torch.autograd.grad(expected, qkv, grad, retain_graph=True)
    with torch.profiler.profile() as profile:
        found = attend(q, k, values, dims, .3)
    assert not any('attention_math' in event.name
                   for event in profile.events())
    given, = torch.autograd.grad(found, qkv, grad.to(dtype))
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for one, other in ((found, expected), (given, wanted)):
        difference = (one.double() - other.double()).abs().max()
        assert difference < bound * other.double().abs().max()
