# Copyright (c) dms_razor contributors. All rights reserved.
"""Channel labels: which channel does every entry of a tensor belong to?

While a network runs once on an example input, every activation is accompanied
by a *label tensor*: an integer tensor of the same shape that names, for every
entry, the channel variable it belongs to. Label 0 means "no channel" (a
constant). Moving data (``view``, ``permute``, ``cat``, ``split``, a channel
shuffle, window partitioning, ...) moves labels in exactly the same way, so
the same PyTorch function is applied to the labels and no rule per architecture
is needed. Label tensors are kept as stride-0 expansions wherever they do not
vary, so they cost next to nothing.
"""
from typing import List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor


def expand_vector(vector: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Labels of a tensor of ``shape`` that vary along ``dim`` only.

    Args:
        vector (Tensor): Labels, shape ``[shape[dim]]``.
        dim (int): The channel dimension.
        shape (Sequence[int]): Shape of the tensor.
    """
    view = [1] * len(shape)
    view[dim] = len(vector)
    return vector.view(view).expand(tuple(shape))


def core(labels: Tensor) -> Tensor:
    """Labels with every dimension that is known to be constant at size 1."""
    for dim in range(labels.dim()):
        if labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def compress(labels: Tensor) -> Tensor:
    """The same labels, stride 0 along every dimension they do not vary in."""
    shape = labels.shape
    labels = core(labels)
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1:
            first = labels.narrow(dim, 0, 1)
            if bool((labels == first).all()):
                labels = first
    return labels.expand(shape)


def align(labels: Tensor, dims: int) -> Tensor:
    """Labels with leading dimensions of size 1, as broadcasting adds them."""
    return labels.view((1, ) * (dims - labels.dim()) + labels.shape)


def vector_along(labels: Tensor, dim: int) -> Optional[Tensor]:
    """Labels along ``dim``, shape ``[size]``; None if others vary too."""
    dim %= labels.dim()
    size = labels.shape[dim]
    labels = core(compress(labels))
    if labels.numel() != labels.shape[dim]:
        return None
    return labels.reshape(-1).expand(size)


def varies_along(labels: Tensor, dims: Sequence[int]) -> bool:
    """Whether any label changes along one of ``dims``."""
    labels = core(compress(labels))
    return any(labels.shape[dim] > 1 for dim in dims)


def components(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The smallest of all numbers below ``count`` that each is tied to.

    Connected components by repeated minimum and pointer jumping, so that a
    hundred thousand channels need no Python loop.

    Args:
        count (int): How many numbers there are.
        left (np.ndarray): One end of each tie, int ``[n]``.
        right (np.ndarray): The other end.
    """
    root = np.arange(count)
    while True:
        a, b = root[left], root[right]
        if (a == b).all():
            return root
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root[root] != root).any():
            root = root[root]


class Variables:
    """The channel variables of a trace and what was found out about them.

    Variables that must live and die together are merged, variables that must
    stay are fixed with a reason. Those that are held stay as well, but for
    one case: where they are dims of a head they may go with the whole head.
    Ids start at 1; 0 is no variable.
    """

    def __init__(self) -> None:
        self.count = 1
        self._merged: List[np.ndarray] = []  # pairs [2, n]
        self._fixed: List[Tuple[np.ndarray, str]] = []
        self._held: List[Tuple[np.ndarray, str]] = []

    def new(self, number: int) -> Tensor:
        """``number`` fresh variables, shape ``[number]``."""
        first, self.count = self.count, self.count + number
        return torch.arange(first, self.count)

    def new_fixed(self, reason: str) -> Tensor:
        """One fresh variable that must stay, for what is not understood."""
        variable = self.new(1)[0]
        self.fix(variable, reason)
        return variable

    def merge(self, left: Tensor, right: Tensor) -> None:
        """The two label tensors (same shape) name the same channels."""
        a, b = left.reshape(-1).numpy(), right.reshape(-1).numpy()
        differ = (a != b) & (a > 0) & (b > 0)
        if differ.any():
            # as one number each: sorting pairs takes many times as long
            pairs = np.unique(a[differ] * self.count + b[differ])
            self._merged.append(np.stack(np.divmod(pairs, self.count)))

    def tie(self, left: Tensor, right: Tensor, reason: str) -> None:
        """:meth:`merge`; a channel that meets a constant entry must stay."""
        left, right = torch.broadcast_tensors(left, right)
        self.merge(left, right)
        lonely = torch.where(left > 0, left, right)[(left > 0) != (right > 0)]
        if lonely.numel():
            self.fix(lonely, reason)

    def fix(self, labels: Tensor, reason: str) -> None:
        """The channels named in ``labels`` must stay; first reason wins."""
        self._note(self._fixed, labels, reason)

    def hold(self, labels: Tensor, reason: str) -> None:
        """The same, unless they are dims of a head and go with it."""
        self._note(self._held, labels, reason)

    @staticmethod
    def _note(kept: List[Tuple[np.ndarray, str]], labels: Tensor,
              reason: str) -> None:
        ids = np.unique(core(labels).reshape(-1).numpy())
        ids = ids[ids > 0]
        if len(ids):
            kept.append((ids, reason))

    def classes(self) -> np.ndarray:
        """The smallest variable each variable is merged with, ``[count]``."""
        pairs = [np.zeros((2, 0), int), *self._merged]
        return components(self.count, *np.concatenate(pairs, 1))

    def fixed(self, classes: np.ndarray) -> dict:
        """Class of variables -> reason why it must stay."""
        return self._by_class(self._fixed, classes)

    def held(self, classes: np.ndarray) -> dict:
        """Class of variables -> reason why it is held."""
        return self._by_class(self._held, classes)

    @staticmethod
    def _by_class(kept: List[Tuple[np.ndarray, str]],
                  classes: np.ndarray) -> dict:
        return {
            root: reason
            for ids, reason in reversed(kept)
            for root in np.unique(classes[ids]).tolist()
        }
