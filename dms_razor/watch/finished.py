# Copyright (c) dms_razor contributors. All rights reserved.
"""Whether a search can learn, was made, and came to its end.

The projection meets the budget whatever the ratios are. So what a loop has
forgotten looks like a result, and is none.
"""
import warnings
from typing import Any

import torch
from torch import Tensor


def check_loss(loss: Tensor) -> None:
    """Refuse a loss through which nothing can be learnt.

    The bank's anchor has a gradient of its own, so that backward would not
    complain, as it does without a search.

    Raises:
        RuntimeError: It has no gradient, where gradients are on.
    """
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise RuntimeError(
            'the loss has no gradient: the network ran under torch.no_grad() '
            '(or inference_mode), or its output or the loss was detached, '
            'e.g. by .item() or .detach(). Give search.loss what the network '
            'returned with gradients')


def check_finished(search: Any) -> int:
    """Look at a search before its network is exported.

    Warns of one that has moved no ratio, or has steps left; not of one whose
    structure was set without a search (:mod:`dms_razor.baselines`).

    Args:
        search (Search): The search.

    Returns:
        int: Steps that it has left; 0 if it has no length.

    Raises:
        ValueError: Its network is another one than was searched.
        RuntimeError: It has made losses and no step.
    """
    search.reader.check(search.model)
    if search.made_losses and search.bank.updates == 0:
        raise RuntimeError(
            'this search has given losses and made no step. Call search.'
            'attach(optimizer) before the loop, or step() after backward.')
    # A loop with a clock of its own sets it when a step begins.
    done = search.step_count + (not search.own_clock)
    length = search.total_steps + search.width_only_steps
    left = max(0, length - done)
    untouched = search.bank.kept().equal(search.space.layout.most)
    if search.bank.motion.account.steps == 0 and untouched:
        warnings.warn(
            'no ratio has moved: what is exported was not searched, but '
            'narrowed by the projection onto the budget. Before the loop call '
            'search.attach(optimizer), and in it backward on '
            'search.loss(loss)',
            stacklevel=3)
    elif left and search.bank.motion.account.steps:
        asked = search.current_target / search.resource.supernet(search.metric)
        warnings.warn(
            f'the search is at step {done:,} of {length:,}, where '
            f'{asked:.1%} of the {search.metric} are asked for: the '
            'projection onto the budget stands in for the rest. Make the '
            'remaining steps (more epochs), or ask for a search of fewer '
            '(total_steps)',
            stacklevel=3)
    return left
