# Copyright (c) dms_razor contributors. All rights reserved.
"""What a subnet takes on the device, beside what the table predicts.

The figures are plain data, so that ``report.json`` holds them and the page,
the text and the picture say the same.
"""
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional


@dataclass
class Timed:
    """What was predicted, measured and asked, in milliseconds.

    Attributes:
        limit (float): What was asked for at most.
        predicted (float): By the table.
        measured (float, optional): What was exported; None if it was not
            measured, then ``reason`` says why.
        spread (float, optional): Half of the range of the figures of which
            ``measured`` is the median, over it.
        tolerance (float): Share that predicted and measured may differ by.
        reason (str): Why nothing was measured, or no correction found.
        setting (dict): With what the table was measured.
        tried (list[dict]): With a correction both networks: ``predicted`` (of
            the second by the table that was scaled), ``measured``, ``spread``
            and whether it was ``kept``.
        factor (float): What the table was scaled by; 1 if it was not.
        points (dict): ``measured`` and ``predicted`` of the subnets that the
            table was checked with, if it was.
        layers (dict): Layer -> predicted milliseconds in supernet and subnet;
            ``''`` is everything else.
    """
    limit: float
    predicted: float
    measured: Optional[float] = None
    spread: Optional[float] = None
    tolerance: float = .05
    reason: str = ''
    setting: Dict[str, Any] = field(default_factory=dict)
    tried: List[Dict[str, Any]] = field(default_factory=list)
    factor: float = 1.
    points: Dict[str, List[float]] = field(default_factory=dict)
    layers: Dict[str, List[float]] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def figures(self) -> Dict[str, float]:
        """The numbers alone, for the manifest; none if not measured."""
        if self.measured is None:
            return {}
        return dict(
            limit=self.limit,
            predicted=self.predicted,
            measured=self.measured,
            spread=self.spread)

    def warning(self) -> str:
        """What speaks against the table's figures; empty if nothing does."""
        if not self.tried and (self.measured is None or within(
                self.measured, self.predicted, self.tolerance)):
            return ''
        return told(self.to_dict())


def within(measured: float, predicted: float, tolerance: float) -> bool:
    """Whether a prediction is as near as it should be."""
    return abs(measured / predicted - 1) <= tolerance


def told(timed: Dict[str, Any]) -> str:
    """Predicted, measured and asked, in a few sentences.

    Args:
        timed (dict): What :meth:`Timed.to_dict` gives.
    """
    limit, tolerance = f'{timed["limit"]:.3g} ms', timed['tolerance']
    if timed['measured'] is None:
        return (f'Latency: {timed["predicted"]:.3g} ms predicted, at most '
                f'{limit} asked; not measured: {timed["reason"]}.')
    first, *second = timed['tried'] or [timed]
    off = first['measured'] / first['predicted'] - 1
    text = (f'Latency: {first["predicted"]:.3g} ms predicted, '
            f'{first["measured"]:.3g} ms measured (spread '
            f'{first["spread"]:.1%}), at most {limit} asked')
    if within(first['measured'], first['predicted'], tolerance):
        text += ', within the tolerance'
    else:
        text += (f': {abs(off):.1%} {"slower" if off > 0 else "faster"} than '
                 f'predicted, more than the tolerance of {tolerance:.0%}')
    if timed['reason']:
        text += f'. No correction: {timed["reason"]}'
    for other in second:
        text += (
            '. A network for a table scaled to what was measured: '
            f'{other["predicted"]:.3g} ms predicted, {other["measured"]:.3g} '
            f'ms measured (spread {other["spread"]:.1%}). The '
            f'{"second" if other["kept"] else "first"} is exported')
    if timed['measured'] > timed['limit']:
        text += (f', {timed["measured"] / timed["limit"] - 1:.1%} above the '
                 'limit')
    return f'{text}.'


def rows(timed: Dict[str, Any]) -> List[List[str]]:
    """Predicted, measured, spread and limit of each network tried."""
    tried = timed['tried'] or [dict(timed, kept=True)]
    names = ['as searched', 'corrected'] if timed['tried'] else ['the subnet']
    return [[
        name + ' (exported)' * (each['kept'] and len(tried) > 1),
        f'{each["predicted"]:.4g} ms',
        '-' if each['measured'] is None else f'{each["measured"]:.4g} ms',
        '-' if each['spread'] is None else f'{each["spread"]:.1%}',
        f'{timed["limit"]:.4g} ms'
    ] for name, each in zip(names, tried)]


HEAD = ('', 'predicted', 'measured', 'spread', 'asked for at most')


def where(timed: Dict[str, Any]) -> str:
    """With what was measured, in a line."""
    setting = timed['setting']
    versions = ', '.join(f'{name} {version}'
                         for name, version in setting['versions'].items())
    return (f'Table and subnet: {setting["backend"]} on {setting["device"]}, '
            f'{setting["threads"]} thread{"s" * (setting["threads"] > 1)}, '
            f'{setting["precision"]}, {setting["processor"]} ({versions}).')
