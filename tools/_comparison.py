# Copyright (c) dms_razor contributors. All rights reserved.
"""The table that the quickstart ends with."""
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional


@dataclass
class Network:
    """One line of the table.

    Attributes:
        name (str): What the table calls it.
        config (Path): The config that trains it.
        macs (int): MACs, counted on one image.
        params (int): Parameters.
        removed (int): Blocks of the supernet that it lacks.
        subnet (Path, optional): Its manifest, if it was exported.
        top1 (list[float]): Score of each training, in percent: top-1 or,
            of a detector, mAP.
    """
    name: str
    config: Path
    macs: int
    params: int
    removed: int = 0
    subnet: Optional[Path] = None
    top1: List[float] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, config: Path, folder: Path) -> 'Network':
        """A network that was exported to ``folder``."""
        report = json.loads((folder / 'report.json').read_text())
        return cls(name, config,
                   report['macs']['counted'], report['params']['counted'],
                   len(report['removed']), folder / 'subnet.json')


def table(networks: List[Network],
          score: str = 'top-1 (%)',
          more: Optional[Dict[str, List[str]]] = None) -> str:
    """The comparison, a Markdown table that also reads in a terminal.

    Args:
        networks (list[Network]): Its lines.
        score (str): What ``top1`` is called.
        more (dict, optional): Further columns, a cell for each network.
    """
    more = more or {}
    rows = [[
        'network', 'MACs', 'parameters', 'blocks removed', score, 'each seed',
        *more
    ]]
    for number, network in enumerate(networks):
        mean = f'{statistics.mean(network.top1):.2f}'
        if len(network.top1) > 1:
            mean += f' ± {statistics.stdev(network.top1):.2f}'
        rows.append([
            network.name, f'{network.macs:,}', f'{network.params:,}',
            str(network.removed), mean,
            ', '.join(f'{value:.2f}' for value in network.top1),
            *(column[number] for column in more.values())
        ])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ['-' * width for width in widths])
    return '\n'.join(
        '| ' +
        ' | '.join(cell.ljust(width)
                   for cell, width in zip(row, widths)) + ' |' for row in rows)
