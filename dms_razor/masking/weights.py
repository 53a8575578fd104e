# Copyright (c) dms_razor contributors. All rights reserved.
"""Weights that a layer computes from a parameter, under masks.

A standardised convolution takes mean and variance over each filter. Of a
narrower network they are those of the inputs that are left, so that, as in
:mod:`dms_razor.masking.norms`, they are weighted with the masks: the mean is
Σmw/Σm and the variance Σm(w−mean)²/Σm. What is computed in the end is
multiplied with the masks where a layer reads it.
"""
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from ..tracing.rules.table import has, op_name

#: Operations that only move entries: masks move in the same way.
MOVES = frozenset(
    'view reshape flatten unflatten permute transpose t T mT view_as '
    'reshape_as squeeze unsqueeze expand expand_as movedim'.split())
SUMS = frozenset('sum norm linalg_vector_norm'.split())
STATISTICS = frozenset('mean var std var_mean std_mean'.split())
READS = frozenset('matmul mm rmatmul einsum'.split())


class WeightInterceptor(TorchFunctionMode):
    """While a layer runs, what it computes from a parameter reads masks.

    Args:
        known (Sequence[tuple]): Parameters, the
            :class:`~dms_razor.masking.masks.Masks` and the
            :class:`~dms_razor.masking.layers.InputMask` of each.
    """

    def __init__(self, known: Sequence[Tuple[Tensor, Any, List]]) -> None:
        super().__init__()
        # id of a tensor -> it, its masks and whether they vary along a dim
        self.known: Dict[int, Tuple[Tensor, Tensor, Tensor]] = {}
        for tensor, masks, own in known:
            product, varies = torch.ones_like(tensor), None
            for mask in own:
                product = mask(product, masks)
                number = torch.arange(tensor.shape[mask.axis])
                number = number.view(
                    [-1 if n == mask.axis else 1 for n in range(tensor.dim())])
                varies = number.expand(tensor.shape)
            self.known[id(tensor)] = (tensor, product, varies)

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, op_name(func)
        leaves = tree_flatten((args, kwargs))[0]
        held = [
            x for x in leaves if isinstance(x, Tensor) and id(x) in self.known
        ]
        if not held or name in ('shape', 'size', 'dim', 'dtype', 'device'):
            return func(*args, **kwargs)
        if has(name, 'layer') or name in READS or 'conv_transpose' in name:
            args, kwargs = tree_map_only(Tensor, self._masked, (args, kwargs))
            return func(*args, **kwargs)
        tensor, mask, place = self.known[id(held[0])]
        if name in STATISTICS | SUMS:
            return self._statistics(name, func, tensor, mask, place, args,
                                    kwargs)
        if name == 'batch_norm':
            out = _standardised(mask, args, kwargs)
        else:
            out = func(*args, **kwargs)
        if not isinstance(out, Tensor):
            return out
        if name in MOVES:
            # What is expanded cannot be viewed.
            func = dict(
                view=Tensor.reshape,
                view_as=Tensor.reshape_as).get(name, func)
            mask, place = (
                func(
                    *tree_map_only(Tensor, lambda x: other
                                   if x is tensor else x, args), **kwargs)
                for other in (mask, place))
        elif out.shape != mask.shape:
            return out
        self.known[id(out)] = (out, mask, place)
        return out

    def _masked(self, x: Tensor) -> Tensor:
        return x * self.known[id(x)][1] if id(x) in self.known else x

    def _statistics(self, name: str, func: Callable, tensor: Tensor,
                    mask: Tensor, place: Tensor, args: tuple,
                    kwargs: Dict[str, Any]) -> Any:
        """A mean, variance, norm or sum of the entries that are kept."""
        if name in SUMS:
            return func(*tree_map_only(Tensor, self._masked, args), **kwargs)
        dims, place_of_keep = _dims(args, kwargs, tensor.dim()), 3
        if name == 'mean':
            place_of_keep = 2
        keep = kwargs.get(
            'keepdim',
            args[place_of_keep] if len(args) > place_of_keep else False)
        total = mask.sum(dims, keepdim=True)
        some = torch.where(total == 0, torch.ones_like(total), total)
        mean = (tensor * mask).sum(dims, keepdim=True) / some
        square = ((tensor - mean).square() * mask).sum(dims, keepdim=True)
        results = dict(mean=mean)
        if name != 'mean':
            less = float(_correction(args, kwargs))
            variance = square / (total - less)
            results.update(var=variance, std=variance.clamp(min=0).sqrt())
        found = tuple(results[part] for part in name.split('_'))
        if not keep:
            found = tuple(
                one.reshape(
                    [n for d, n in enumerate(one.shape) if d not in dims])
                for one in found)
        varies = place.amax(
            dims, keepdim=True) != place.amin(
                dims, keepdim=True)
        if not bool(varies.any()) and len(found) == 1:  # masks go on
            self.known[id(found[0])] = (found[0],
                                        mask.mean(dims, keepdim=keep),
                                        place.amax(dims, keepdim=keep))
        return found[0] if len(found) == 1 else found


def _dims(args: tuple, kwargs: Dict[str, Any], number: int) -> List[int]:
    dim = kwargs.get('dim',
                     kwargs.get('axis', args[1] if len(args) > 1 else None))
    if dim is None or isinstance(dim, bool) or dim in ((), []):
        return list(range(number))
    return [d % number for d in ([dim] if isinstance(dim, int) else dim)]


def _correction(args: tuple, kwargs: Dict[str, Any]) -> Any:
    """What a variance subtracts from the number of entries."""
    if kwargs.get('correction') is not None:
        return kwargs['correction']
    given = [x for x in args[1:3] if isinstance(x, bool)]
    return kwargs.get('unbiased', given[0] if given else True)


def _standardised(mask: Tensor, args: tuple, kwargs: Dict[str, Any]) -> Tensor:
    """Batch norm of ``[1, O, K]`` in train mode, used on filters."""

    def get(position: int, key: str, default: Any = None) -> Any:
        return args[position] if len(args) > position else kwargs.get(
            key, default)

    x, weight, bias = get(0, 'input'), get(3, 'weight'), get(4, 'bias')
    dims = [d for d in range(x.dim()) if d != 1]
    view = (1, -1) + (1, ) * (x.dim() - 2)
    total = mask.sum(dims, keepdim=True)
    out = x - (x * mask).sum(dims, keepdim=True) / total
    variance = (out.square() * mask).sum(dims, keepdim=True) / total
    out = out * (variance + get(7, 'eps', 1e-5)).rsqrt()
    out = out if weight is None else out * weight.view(view)
    return out if bias is None else out + bias.view(view)
