# Copyright (c) dms_razor contributors. All rights reserved.
"""The method 'taylor': elements are worth what the loss does without them."""
from typing import Any, Callable, Iterable, Optional

import torch
from torch import Tensor, nn

from ..network import untouched
from ..search import Search
from .methods import METHODS, comparable


@METHODS.register('taylor')
def taylor(search: Search, batches: Optional[Iterable[Any]],
           loss: Optional[Callable[[nn.Module, Any], Tensor]]) -> Tensor:
    """First-order Taylor importance ``Σ_batches (m·g)²`` at masks m of 1.

    g is the gradient of the loss of a batch in the mask of an element,
    wherever it acts, as in equation 4. The network runs as in evaluation and
    is not changed, its gradients neither. Divided by the mean of each unit.

    Args:
        search (Search): The network with its masks.
        batches (Iterable): What the loss is taken of, one by one.
        loss (Callable): ``loss(model, batch)``, a scalar; smaller is better.

    Raises:
        ValueError: One of both is missing, there is no batch, or the loss is
            not one of this network's output.
    """
    if batches is None or loss is None:
        missing = 'batches' if batches is None else 'loss'
        raise ValueError(f"the method 'taylor' needs {missing}=: give both "
                         'batches=, an iterable, and loss=, a function '
                         'loss(model, batch)')
    bank, reader, used = search.bank, search.reader, 0
    scores = torch.zeros_like(bank.importance)
    masks = torch.ones_like(bank.masks, requires_grad=True)
    source, reader.source = reader.source, lambda: masks
    try:
        with untouched(search.model), torch.enable_grad():
            for batch in batches:
                value = loss(search.model, batch)
                grad = None
                if value.requires_grad:
                    grad, = torch.autograd.grad(
                        value, masks, allow_unused=True)
                if grad is None:
                    raise ValueError(
                        'the loss has no gradient in the masks: compute it '
                        'from model(...) of the network that is narrowed')
                scores += grad.double().square().cpu()
                used += 1
    finally:
        reader.source = source
    if not used:
        raise ValueError("the method 'taylor' got no batch; give at least "
                         'one, and not an iterator that is used up')
    return comparable(scores, bank.layout)
