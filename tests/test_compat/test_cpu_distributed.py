# Copyright (c) dms_razor contributors. All rights reserved.
"""Two gloo processes against one process that sees both batches."""
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from torch import distributed as dist
from torch import nn

from dms_razor import compat
from dms_razor.compat import cpu_distributed as cpu
from dms_razor.compat import default_model_wrapper

SIZES = (2, 4)  # images on rank 0 and rank 1


def batches():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(
        sum(SIZES), 3, 2, 5, dtype=torch.float64, generator=generator) * 3 + 1


def layer(kind, momentum):
    norm = kind(3, momentum=momentum).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([.5, 1., 2.]))
        norm.bias.copy_(torch.tensor([1., 0., -1.]))
    return norm


def run(norm, inputs):
    """Two steps; the loss is no sum over pixels, so that gradients vary."""
    inputs = inputs.clone().requires_grad_()
    for _ in range(2):
        output = norm(inputs)
    weight = torch.linspace(-1, 2, 30, dtype=torch.float64).view(3, 2, 5)
    (weight * output.square()).sum().backward()
    return dict(
        output=output.detach(),
        input_grad=inputs.grad,
        weight_grad=norm.weight.grad,
        bias_grad=norm.bias.grad,
        mean=norm.running_mean,
        var=norm.running_var,
        count=norm.num_batches_tracked)


def worker(rank, folder, momentum):
    compat.apply()
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    mine = batches().split(SIZES)[rank]
    norm = layer(nn.SyncBatchNorm, momentum)
    torch.save(run(norm, mine), f'{folder}/rank{rank}.pth')
    half = layer(nn.SyncBatchNorm, momentum).float()
    torch.save(half(mine.bfloat16()).detach(), f'{folder}/half{rank}.pth')
    norm.eval()
    torch.save(norm(mine).detach(), f'{folder}/eval{rank}.pth')
    dist.barrier()  # old torch hangs in the next line otherwise
    dist.destroy_process_group()


def check_sync_batch_norm(folder, momentum):
    mp.spawn(worker, (str(folder), momentum), nprocs=2)
    norm = layer(nn.BatchNorm2d, momentum)
    truth = run(norm, batches())
    ranks = [torch.load(folder / f'rank{i}.pth') for i in range(2)]
    for name in ('output', 'input_grad'):
        both = torch.cat([rank[name] for rank in ranks])
        assert torch.allclose(both, truth[name], rtol=0, atol=1e-12), name
    for name in ('weight_grad', 'bias_grad'):
        both = sum(rank[name] for rank in ranks)
        assert torch.allclose(both, truth[name], rtol=0, atol=1e-11), name
    for name in ('mean', 'var', 'count'):
        for rank in ranks:
            assert torch.allclose(rank[name], truth[name]), name
    half = torch.cat([torch.load(folder / f'half{i}.pth') for i in range(2)])
    once = layer(nn.BatchNorm2d, momentum)(batches())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.double(), once, atol=.03, rtol=.01)
    norm.eval()
    both = torch.cat([torch.load(folder / f'eval{i}.pth') for i in range(2)])
    assert torch.allclose(both, norm(batches()))


def test_sync_batch_norm_is_batch_norm_of_all_batches(tmp_path):
    check_sync_batch_norm(tmp_path, momentum=.1)


def test_sync_batch_norm_with_cumulative_average(tmp_path):
    check_sync_batch_norm(tmp_path, momentum=None)


def test_one_value_a_channel_is_refused(run_python, tmp_path):
    code = '''
import sys, torch
from dms_razor import compat
compat.apply()
torch.distributed.init_process_group(
    'gloo', init_method='file://' + sys.argv[1], rank=0, world_size=1)
torch.nn.SyncBatchNorm(2)(torch.ones(1, 2, 1))
'''
    result = run_python(code, tmp_path / 'store')
    assert 'ValueError: SyncBatchNorm cannot train on one' in result.stderr


def test_slurm_variables_open_a_gloo_group(run_python, free_port):
    code = '''
from dms_razor import compat
compat.apply()
from mmengine.dist import get_dist_info, init_dist
import os, torch
init_dist('slurm')
assert get_dist_info() == (0, 1)
assert torch.distributed.get_backend() == 'gloo'
assert os.environ['LOCAL_RANK'] == '0'
'''
    result = run_python(
        code,
        SLURM_PROCID='0',
        SLURM_NTASKS='1',
        SLURM_LOCALID='0',
        SLURM_NODELIST='node1',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(free_port))
    assert result.returncode == 0, result.stderr


def test_an_accelerator_keeps_mmengine_s_own_start(monkeypatch):
    calls = []
    start = cpu.init_on_cpu(lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr(cpu, '_has_accelerator', lambda: True)
    start('nccl', init_backend='torch', timeout=3)
    assert calls == [(('nccl', ), dict(init_backend='torch', timeout=3))]
    cfg = Config(dict(launcher='pytorch'))
    default_model_wrapper(cfg)
    assert 'model_wrapper_cfg' not in cfg


def test_model_wrapper_of_a_cpu_run(monkeypatch):
    monkeypatch.setattr(cpu, '_has_accelerator', lambda: False)
    cfg = Config(dict(launcher='none'))
    default_model_wrapper(cfg)
    assert 'model_wrapper_cfg' not in cfg
    cfg = Config(dict(launcher='pytorch', find_unused_parameters=True))
    default_model_wrapper(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None)
    mine = dict(type='MMSeparateDistributedDataParallel')
    cfg = Config(dict(launcher='pytorch', model_wrapper_cfg=mine))
    default_model_wrapper(cfg)
    assert cfg.model_wrapper_cfg == dict(mine, device_ids=None)
