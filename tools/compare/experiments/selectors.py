# Copyright (c) dms_razor contributors. All rights reserved.
"""What is learnt, all else equal: the table of scale_down over selectors."""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base

#: This paper's, and those that it compares with (Table 2, Table 11).
SELECTORS = ('dms', 'get', 'mes', 'sns', 'unnormalised')

experiment = replace(
    base,
    title='Selectors',
    rows=[Row(name, search=dict(selector=name)) for name in SELECTORS] +
    [base.row('even'), base.row('hand')])
