# Copyright (c) dms_razor contributors. All rights reserved.
"""Accuracy over the cost of the search: searches, and none at all."""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.lengths import experiment as base

experiment = replace(
    base,
    title='Accuracy over the cost of the search',
    rows=[base.row(f'dms {epochs:g} epochs')
          for epochs in (.5, 1, 2, 4, 8)] + [
              Row('random local', 'random', options=dict(scope='local')),
              Row('random global', 'random', options=dict(scope='global')),
              Row('evolution', 'evolution'),
              base.row('even'),
              base.row('hand')
          ])
