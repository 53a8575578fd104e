# Copyright (c) dms_razor contributors. All rights reserved.
"""What elements are ranked by: the table of scale_down over importances."""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base

IMPORTANCES = ('taylor', 'taylor_no_average', 'snip', 'fisher', 'index')

experiment = replace(
    base,
    title='Importances',
    rows=[Row(name, search=dict(importance=name)) for name in IMPORTANCES] +
    [base.row('even'), base.row('hand')],
    references=('taylor', 'even'))
