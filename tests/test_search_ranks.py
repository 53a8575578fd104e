# Copyright (c) dms_razor contributors. All rights reserved.
"""Whole searches on two and four ranks against one that sees every batch.

DDP or FSDP2, SyncBatchNorm and accumulated gradients, 50 steps in float64,
through gloo: ratios, importances and weights agree to 1e-9, masks in every
step.
"""
import contextlib
import multiprocessing
import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed import fsdp
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from dms_razor import Search
from dms_razor.compat import shims
from dms_razor.subnet import Manifest

STEPS, PARTS, BATCH = 50, 2, 8


class Block(nn.Module):

    def __init__(self, width, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = norm(width)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.norm(self.conv1(x))))


def network(norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm(8), nn.SiLU(), Block(8, norm),
        Block(8, norm), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4)).double()


def batches():
    """For each step the parts that are accumulated, whole."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield [(torch.randn(
            BATCH, 3, 4, 4, generator=generator, dtype=torch.float64),
                torch.randint(4, (BATCH, ), generator=generator))
               for _ in range(PARTS)]


def sharded(net):
    """A network whose weights lie in pieces on the ranks."""
    for block in net[3:5]:
        fsdp.fully_shard(block)
    return fsdp.fully_shard(net)


@contextlib.contextmanager
def not_together(model):
    """Gradients stay on their rank, to be summed up in a later pass."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, 'full_tensor') else tensor


def search(folder, rank=0, ranks=1, shard=False, **settings):
    """What a rank finds in its share of each batch."""
    net = network(nn.BatchNorm2d if ranks == 1 else nn.SyncBatchNorm)
    found = Search(
        net,
        torch.zeros(1, 3, 4, 4).double(),
        target='50%',
        total_steps=STEPS - 10,
        width_only_steps=10)
    model = net if ranks == 1 else sharded(
        net) if shard else DistributedDataParallel(net, **settings)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05, momentum=.9)
    found.attach(optimizer)
    masks, calls = [], []
    for step, batch in enumerate(batches()):
        optimizer.zero_grad()
        for number, part in enumerate(batch):
            x, y = (value.chunk(ranks)[rank] for value in part)
            # torch wants a static graph to be seen whole in the first step
            together = ranks == 1 or number == PARTS - 1 or (settings
                                                             and step == 0)
            with contextlib.nullcontext() if together else not_together(model):
                loss = found.loss(F.cross_entropy(model(x), y))
                (loss / PARTS).backward()
        with counted(calls):
            optimizer.step()
        masks.append(found.bank.masks.detach())
    if rank == 0 or shard:  # what lies on all of them all have to gather
        found.export(folder / f'subnet{ranks}', picture=False)
    state = found.bank.state_dict()
    return dict({k: state[k]
                 for k in ('ratios', 'importance', 'order')},
                masks=torch.stack(masks),
                weights=torch.cat(
                    [whole(p.detach()).flatten() for p in net.parameters()]),
                statistics=torch.cat(
                    [b.double().flatten() for b in net.buffers() if b.dim()]),
                sums=torch.tensor(sum(name == 'all_reduce' for name in calls)))


@contextlib.contextmanager
def counted(calls):
    """Notes the collectives that a step of the optimizer makes."""
    names = ('all_reduce', 'all_gather', 'broadcast')
    before = {name: getattr(dist, name) for name in names}

    def noting(name):

        def call(*args, **kwargs):
            calls.append(name)
            return before[name](*args, **kwargs)

        return call

    for name in names:
        setattr(dist, name, noting(name))
    try:
        yield
    finally:
        for name in names:
            setattr(dist, name, before[name])


def worker(rank, ranks, folder, settings):
    torch.set_num_threads(1)
    shims.cpu_distributed()
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store{ranks}',
        rank=rank,
        world_size=ranks)
    try:
        torch.save(
            search(folder, rank, ranks, **settings),
            folder / f'{ranks}_{rank}.pth')
    finally:
        dist.destroy_process_group()


def started(worker, args, ranks):
    """Ranks, forked from one process that has imported everything."""
    multiprocessing.set_forkserver_preload(['torch', 'dms_razor.search'])
    return mp.start_processes(
        worker, args, nprocs=ranks, join=False, start_method='forkserver')


def losing(rank, folder, how):
    """Two ranks, of which the second is lost in the fourth step."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=3))
    net = network()
    found = Search(net, torch.zeros(1, 3, 4, 4).double(), total_steps=9)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    found.attach(optimizer)
    for step in range(9):
        if rank == 1 and step == 3:
            os._exit(7) if how == 'dies' else time.sleep(600)
        optimizer.zero_grad()
        x, y = next(batches())[0]
        found.loss(F.cross_entropy(net(x), y)).backward()
        (folder / 'begun').write_text(str(step))
        optimizer.step()


@pytest.mark.parametrize('how', ['dies', 'hangs'])
def test_a_lost_rank_ends_the_others(how, tmp_path):
    """Its own update waits for the others no longer than they may take."""
    ranks = started(losing, (tmp_path, how), 2)
    ranks.processes[0].join(120)
    assert ranks.processes[0].exitcode == 1, 'ended by itself, with an error'
    assert (tmp_path / 'begun').read_text() == '3'
    with pytest.raises((mp.ProcessRaisedException, mp.ProcessExitedException)):
        while not ranks.join(10):
            pass
    assert not any(process.is_alive() for process in ranks.processes)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    return search(tmp_path_factory.mktemp('alone'))


@pytest.mark.parametrize('ranks, settings', [
    (2, dict(static_graph=True)),
    (4, {}),
    pytest.param(
        4,
        dict(shard=True),
        marks=pytest.mark.skipif(
            not hasattr(fsdp, 'fully_shard'),
            reason='FSDP2 is in torch from 2.6 on')),
])
def test_ranks_search_what_one_searches(ranks, settings, alone, tmp_path):
    running = started(worker, (ranks, tmp_path, settings), ranks)
    while not running.join():
        pass
    found = [
        torch.load(tmp_path / f'{ranks}_{rank}.pth', weights_only=True)
        for rank in range(ranks)
    ]
    for other in found[1:]:
        for name, value in other.items():
            assert torch.equal(value, found[0][name]), name  # bit by bit
    assert int(found[0].pop('sums')) == STEPS, 'one all-reduce a step'
    assert torch.equal(found[0].pop('order'), alone['order'])
    for name, value in found[0].items():
        torch.testing.assert_close(
            value, alone[name], rtol=1e-9, atol=1e-9, msg=name)
    assert alone['ratios'].max() > .1 and alone['ratios'].std() > .01
    assert not torch.equal(alone['masks'][5], alone['masks'][20])
    manifest = Manifest.load(tmp_path / f'subnet{ranks}')
    assert manifest.macs['counted'] <= .5 * manifest.macs['supernet']
