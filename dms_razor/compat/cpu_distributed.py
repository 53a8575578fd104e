# Copyright (c) dms_razor contributors. All rights reserved.
"""Distributed training on a machine without an accelerator, through gloo.

MMEngine selects a GPU before it opens the process group and passes a device id
to DistributedDataParallel, which refuses SyncBatchNorm on the CPU, as does
torch's SyncBatchNorm itself. Each function here takes over for the CPU only.
"""
from typing import Callable
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor


def init_on_cpu(original: Callable) -> Callable:
    """Wrap MMEngine's ``_init_dist_pytorch`` or ``_init_dist_slurm``.

    Whatever backend is asked for, it is gloo; and no GPU is selected.
    """

    def init(backend, *args, **kwargs) -> None:
        if _has_accelerator():
            return original(backend, *args, **kwargs)
        # Slurm without SLURM_LOCALID: the rank modulo the number of GPUs
        with patch('torch.cuda.set_device'), \
                patch('torch.cuda.device_count', return_value=1):
            original('gloo', *args, **kwargs)

    return init


def _has_accelerator() -> bool:
    from mmengine.device import get_device
    return get_device() != 'cpu'


def default_model_wrapper(cfg) -> None:
    """Complete ``cfg.model_wrapper_cfg`` for a distributed run on the CPU.

    MMEngine's Runner passes ``device_ids=[LOCAL_RANK]``, which
    DistributedDataParallel rejects for a CPU model. No effect without a
    launcher or with an accelerator.

    Args:
        cfg (mmengine.Config): Changed in place.
    """
    if cfg.get('launcher', 'none') != 'none' and not _has_accelerator():
        if cfg.get('model_wrapper_cfg') is None:
            # what Runner.wrap_model does when it is given nothing
            cfg.model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                find_unused_parameters=cfg.get('find_unused_parameters',
                                               False))
        cfg.model_wrapper_cfg.setdefault('device_ids', None)


def sync_batch_norm(original: Callable) -> Callable:
    """Wrap ``SyncBatchNorm.forward``: same formula, CPU tensors, gloo.

    The sums go through a differentiable all-reduce, so gradients cross ranks
    as in torch's GPU kernels.
    """

    def forward(self, input: Tensor) -> Tensor:
        in_group = dist.is_available() and dist.is_initialized()
        if not (self.training and in_group and input.device.type == 'cpu'):
            return original(self, input)
        self._check_input_dim(input)
        # under autocast: statistics in single precision, as on the GPU
        dtype = torch.promote_types(input.dtype, torch.float32)
        return _sync_forward(self, input.to(dtype)).to(input.dtype)

    return forward


def sync_batch_norm_check(original: Callable) -> Callable:
    """Wrap DistributedDataParallel's refusal of SyncBatchNorm on the CPU."""

    def check(self, module) -> None:
        if self.device_type != 'cpu':
            original(self, module)

    return check


def _sync_forward(norm: torch.nn.SyncBatchNorm, input: Tensor) -> Tensor:
    """Normalise [B, C, ...] over the batches of all ranks."""
    from torch.distributed.nn.functional import all_reduce
    group = norm.process_group or dist.group.WORLD
    dims = [0] + list(range(2, input.dim()))
    shape = [1, -1] + [1] * (input.dim() - 2)
    sums = all_reduce(
        torch.cat([
            input.sum(dims),
            input.new_tensor([input.numel() // input.size(1)])
        ]),
        group=group)
    count = sums[-1].detach()
    if count == 1:
        raise ValueError('SyncBatchNorm cannot train on one value per channel '
                         f'(input {tuple(input.shape)} on one process): use '
                         'a larger batch.')
    mean = sums[:-1] / count
    centred = input - mean.view(shape)
    var = all_reduce(centred.square().sum(dims), group=group) / count
    if norm.running_mean is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            momentum = (1 / norm.num_batches_tracked.item()
                        if norm.momentum is None else norm.momentum)
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(var * count / (count - 1), momentum)
    output = centred * (var + norm.eps).rsqrt().view(shape)
    if norm.affine:
        output = output * norm.weight.view(shape) + norm.bias.view(shape)
    return output
