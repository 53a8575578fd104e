# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling in plain torch, readable beside the paper.

* :mod:`.layout`: units of a network and their flat order;
* :mod:`.topk`: differentiable top-k, section 3.1;
* :mod:`.importance`: equation 4 and the importances of Table 6;
* :mod:`.selectors`: the learnable numbers, pruning ratios in the paper;
* :mod:`.straight_through`, :mod:`.gates`, :mod:`.number_choice`,
  :mod:`.thresholds`: what these are compared with in Tables 2 and 11;
* :mod:`.resource`: MACs, parameters and other metrics in closed form;
* :mod:`.budget`: the target, its decay and the loss above it;
* :mod:`.bank`: the state of a search and its update;
* :mod:`.projection`: from ratios to the network that meets the budget.

``examples/dms_minimal.py`` runs all of it on a small network.
"""
from .bank import Bank
from .budget import (TargetError, TargetSchedule, check_target,
                     constraint_loss, format_amount, parse_target)
from .gates import ElementGates
from .importance import IMPORTANCES
from .layout import KINDS, Layout, Unit
from .number_choice import NumberChoice
from .projection import project
from .resource import METRICS, Axis, Cost, Metric, ResourceModel, Term
from .selectors import SELECTORS, Selector
from .straight_through import StraightThrough
from .thresholds import Thresholds
from .topk import (hard_masks, initial_order, kept_counts, rank_order,
                   ranks_from_order, ratio_bounds, soft_masks, topk)

__all__ = [
    'Axis', 'Bank', 'Cost', 'ElementGates', 'IMPORTANCES', 'KINDS', 'Layout',
    'METRICS', 'Metric', 'NumberChoice', 'ResourceModel', 'SELECTORS',
    'Selector', 'StraightThrough', 'TargetError', 'TargetSchedule', 'Term',
    'Thresholds', 'Unit', 'check_target', 'constraint_loss', 'format_amount',
    'hard_masks', 'initial_order', 'kept_counts', 'parse_target', 'project',
    'rank_order', 'ranks_from_order', 'ratio_bounds', 'soft_masks', 'topk'
]
