# Copyright (c) dms_razor contributors. All rights reserved.
"""Other ways to a structure, on the same space and under the same budget.

What the paper compares its search with; plain PyTorch, like
:class:`dms_razor.Search`, whose units, costs, masks and export they use.
"""
from .evolution import Candidate, CountsInBudget, Evolution, evolve
from .magnitude import l1
from .methods import METHODS, comparable
from .narrowing import narrow
from .sensitivity import taylor

__all__ = [
    'Candidate', 'CountsInBudget', 'Evolution', 'METHODS', 'comparable',
    'evolve', 'l1', 'narrow', 'taylor'
]
