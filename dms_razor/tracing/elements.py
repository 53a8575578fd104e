# Copyright (c) dms_razor contributors. All rights reserved.
"""Which element every channel belongs to, once units are numbered."""
from typing import Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from .labels import compress, core


class Elements:
    """Elements by class of channel variables.

    Args:
        classes (np.ndarray): Class of every variable.

    Attributes:
        own (np.ndarray): Element of each class, -1 for none.
        head (np.ndarray): Element of the attention head that a class lies
            in, -1 for none.
    """

    def __init__(self, classes: np.ndarray) -> None:
        self.classes = classes
        self.own = np.full(len(classes), -1)
        self.head = np.full(len(classes), -1)

    def own_index(self, labels: Tensor) -> Tensor:
        """Own element of each label, -1 for none; shape of ``labels``."""
        return torch.from_numpy(self.own[self.classes[labels.numpy()]])

    def index(self, labels: Tensor) -> Tensor:
        """Element of each label, -1 where nothing can be pruned.

        Returns:
            Tensor: int64, the shape of ``labels``; with a last dimension of 2
            (own element, element of the head) if some belong to heads.
        """
        own = self.own_index(labels)
        head = torch.from_numpy(self.head[self.classes[labels.numpy()]])
        return torch.stack([own, head], -1) if bool((head >= 0).any()) else own

    def entry_axis(self, labels: Tensor) -> Optional[Tuple[int, Tensor]]:
        """Axis of a parameter used elementwise, and its elements; or None.

        Raises:
            ValueError: Its channels lie along several axes.
        """
        index = self.index(labels)
        if not bool((index >= 0).any()):
            return None
        code = index if index.shape == labels.shape else \
            index[..., 0] * len(self.own) * 2 + index[..., 1]
        shape = core(compress(code)).shape
        varying = [dim for dim, size in enumerate(shape) if size > 1]
        if len(varying) != 1:
            raise ValueError
        axis = varying[0]
        for dim in range(labels.dim() - 1, -1, -1):
            if dim != axis:
                index = index.select(dim, 0)
        return axis, index.contiguous()
