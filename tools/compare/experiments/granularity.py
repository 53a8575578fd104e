# Copyright (c) dms_razor contributors. All rights reserved.
"""How fine the search is: steps of one channel, or of several.

The table of scale_down (paper, Table 16). A ``divisor`` makes so many
neighbouring channels one element; the larger supernet is as in its last rows.
"""
from dataclasses import replace
from functools import partial
from typing import Any, Dict

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base
from tools.compare.networks import ResNet

larger = partial(ResNet, (32, 64, 128), (4, 4, 4))


def steps(divisor: int) -> Dict[str, Any]:
    """Arguments of a search in steps of so many channels."""
    return dict(units={'*': dict(divisor=divisor)})


experiment = replace(
    base,
    title='Steps of the widths',
    rows=[
        Row('steps of 1'),
        Row('steps of 4', search=steps(4)),
        Row('steps of 8', search=steps(8)),
        Row('steps of 1, larger supernet', supernet=larger),
        Row('steps of 8, larger supernet', supernet=larger, search=steps(8)),
    ],
    references=('steps of 1', ))
