# Copyright (c) dms_razor contributors. All rights reserved.
"""What came out of a search, in a few sentences."""
from typing import Any, Dict, List

from ..core.budget import format_amount
from ..core.decision import PROJECTED, SAME, Decision
from ..core.resource import METRICS

PRODUCTS = 'products without weights, as in attention'
"""What is in the layer table beside layers."""
EXPLAINED = (
    'A ratio is the share of a unit that goes, 0 to 1; what moved it is a '
    'mean over all units, without sign. Two structures differ by the mean '
    f'difference of what their units keep: below {SAME:.0%} they are called '
    'the same. '
    'The projection makes whole channels and blocks of the ratios that meet '
    f'the budget; beyond {PROJECTED:.0%} of the cut it is told as a doubt.')
"""What the figures of who decided mean."""


def share(part: float, whole: float) -> str:
    """``'49.9 %'``; of nothing it is all."""
    return f'{part / whole if whole else 1.:.1%}'.replace('%', ' %')


def summarise(report: Dict[str, Any]) -> str:
    """What a report says, in a few sentences.

    Args:
        report (dict): The content of a report.json.
    """
    return ' '.join([_cost(report), _kept(report), decided(report)])


def _cost(report: Dict[str, Any]) -> str:
    asked = report['asked']
    found = {**report, **report.get('others', {})}
    names = dict.fromkeys(
        [asked['metric'], 'macs', 'params', *report.get('others', {})])
    parts = []
    for name in names:
        cost = found[name]
        label = METRICS[name].label if name in METRICS else name
        now = cost.get('counted', cost['searched'])
        parts.append(f'{share(now, cost["supernet"])} of the {label} '
                     f'({format_amount(now, name)} of '
                     f'{format_amount(cost["supernet"], name)})')
    text = f'{report.get("network", "The network")} with {", ".join(parts)}'
    limits = [
        f'{format_amount(limit, name)} {name}'
        for name, limit in limits_of(report).items()
    ]
    if limits:
        text += f'; asked for were at most {" and ".join(limits)}'
    return text + '.'


def limits_of(report: Dict[str, Any]) -> Dict[str, float]:
    """Metric -> what was asked for at most; empty if nothing was."""
    asked = report['asked']
    if asked['target'] is None:
        return {}
    return asked.get('limits') or {asked['metric']: asked['target']}


def _kept(report: Dict[str, Any]) -> str:
    kept, parts = {}, []
    for unit in report['units']:
        kind = 'removable block' if unit['kind'] == 'depth' else \
            dict(heads='head', experts='expert').get(unit['kind'], 'channel')
        number = unit['groups'] * unit['step']
        before, after = kept.get(kind, (0, 0))
        kept[kind] = (before + unit['total'] * number,
                      after + kept_of(unit) * number)
    for kind, (before, after) in kept.items():
        parts.append(f'{after:,} of {before:,} {kind}s')
    return f'It keeps {", ".join(parts)}.' if parts else 'Nothing was cut.'


def kept_of(unit: Dict[str, Any]) -> int:
    """What the subnet has of a unit of a report: nothing of removed blocks."""
    return 0 if unit.get('gone') else unit['kept']


def products(report: Dict[str, Any]) -> List[int]:
    """MACs of supernet and subnet that are in no layer with weights.

    They are products of activations, as in attention: with them the layers
    add up to the whole.
    """
    macs = report['macs']
    whole = macs['supernet'], macs.get('counted', macs['searched'])
    return [
        round(total - sum(layer['macs'][which] for layer in report['layers']))
        for which, total in enumerate(whole)
    ]


def doubts(report: Dict[str, Any]) -> List[str]:
    """What speaks against calling the structure searched."""
    known = report.get('decision')
    return Decision(**known).doubts() if known else []


def decided(report: Dict[str, Any]) -> str:
    """Who decided the structure, in a sentence or two."""
    if not report.get('decision'):
        return ('No search of this budget decided the structure: no ratio had '
                'moved, or another budget was asked for.')
    return ' '.join(doubts(report)) or 'The task decided the structure.'
