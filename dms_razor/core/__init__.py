# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling in plain torch, readable beside the paper.

* :mod:`.layout`: units of a network and their flat order;
* :mod:`.topk`: differentiable top-k, section 3.1;
* :mod:`.importance`: equation 4 and the metrics of Table 6;
* :mod:`.resource`, :mod:`.constraint`, :mod:`.target`, :mod:`.schedule`: MACs
  and parameters in closed form, the loss on them, the budget and its decay;
* :mod:`.bank`: the state of a search and its update;
* :mod:`.projection`: from ratios to the network that meets the budget.
"""
from .bank import Bank
from .budget import (TargetError, TargetSchedule, check_target,
                     constraint_loss, format_amount, parse_target)
from .importance import METRICS
from .layout import KINDS, Layout, Unit
from .projection import project
from .resource import Axis, Cost, ResourceModel, Term
from .topk import (hard_masks, initial_order, kept_counts, rank_order,
                   ranks_from_order, ratio_bounds, soft_masks, topk)

__all__ = [
    'Axis', 'Bank', 'Cost', 'KINDS', 'Layout', 'METRICS', 'ResourceModel',
    'TargetError', 'TargetSchedule', 'Term', 'Unit', 'check_target',
    'constraint_loss', 'format_amount', 'hard_masks', 'initial_order',
    'kept_counts', 'parse_target', 'project', 'rank_order', 'ranks_from_order',
    'ratio_bounds', 'soft_masks', 'topk'
]
