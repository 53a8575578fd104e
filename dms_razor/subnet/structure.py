# Copyright (c) dms_razor contributors. All rights reserved.
"""The structure of a searched network, summed up stage by stage."""
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

from .summary import kept_of


@dataclass
class Stage:
    """What a stage keeps, named by the path that its layers share.

    Channels over all its width units and removable blocks, each kept and of
    the supernet.
    """
    name: str
    kept: int = 0
    channels: int = 0
    kept_blocks: int = 0
    blocks: int = 0


def stage_name(unit: str) -> str:
    """The stage that a unit belongs to, from its path.

    The path is cut before its last number, the block's, or before the second
    one where stages are numbered too: ``backbone.layer1.0.conv1`` is part of
    ``backbone.layer1``, ``backbone.layers.4.1.conv`` of
    ``backbone.layers.4``.
    """
    parts = unit.split('.')
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return '.'.join(parts[:numbers[:2][-1]]) if numbers else unit


def by_stage(structure: Sequence[Dict[str, Any]]) -> List[Stage]:
    """Sum up :meth:`Search.structure` by stage, in the network's order.

    Args:
        structure (Sequence[dict]): One dict for each unit, with ``name``,
            ``kind``, ``kept`` and ``total``.
    """
    stages: Dict[str, Stage] = {}
    for unit in structure:
        depth = unit['kind'] == 'depth'
        name = unit['name'] if depth else stage_name(unit['name'])
        stage = stages.setdefault(name, Stage(name))
        if depth:
            stage.kept_blocks += unit['kept']
            stage.blocks += unit['total']
        else:
            stage.kept += unit['kept']
            stage.channels += unit['total']
    return list(stages.values())


def exported(report: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The structure of an exported network, as :func:`by_stage` takes it.

    It is what the projection made of the ratios, and not what they round to,
    as :meth:`Search.structure` gives it; removed blocks have no channels.

    Args:
        report (dict): The content of a report.json.
    """
    return [
        dict(
            name=unit['name'],
            kind=unit['kind'],
            kept=kept_of(unit) * unit['groups'] * unit['step'],
            total=unit['total'] * unit['groups'] * unit['step'])
        for unit in report['units']
    ]


def structure_table(structure: Sequence[Dict[str, Any]]) -> str:
    """Kept and total channels and blocks of each stage, for people."""
    rows = [('stage', 'channels', '', 'blocks')]
    rows += [(stage.name,
              *((f'{stage.kept:,} / {stage.channels:,}',
                 f'{stage.kept / stage.channels:.0%}') if stage.channels else
                ('', '')),
              f'{stage.kept_blocks} / {stage.blocks}' if stage.blocks else '')
             for stage in by_stage(structure)]
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return '\n'.join(
        f'  {row[0]:<{wide[0]}}  {row[1]:>{wide[1]}}  {row[2]:>{wide[2]}}  '
        f'{row[3]:>{wide[3]}}'.rstrip() for row in rows)
