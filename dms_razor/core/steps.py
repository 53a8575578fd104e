# Copyright (c) dms_razor contributors. All rights reserved.
"""In what steps a width pays on a device.

Kernels work on blocks of channels, 8 or 16 at a time. Where a block is not
full it takes the time of a full one, so that channels between two multiples
are lost for nothing. Whether a device is like that shows at neighbouring
widths: of the time that a narrower layer would save on a straight line between
two multiples of d, hardly anything is there.
"""
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .budget import AUTO
from .latency import LatencyError, read_table
from .layout import Layout, Unit

#: In the name of a part: depth-wise convolutions have kernels of their own,
#: with steps of their own.
DEPTHWISE = 'depthwise=True'
DIVISORS = (2, 4, 8, 16, 32)
#: What counts as a step: so much of the time of a straight line is saved.
SAVED = .25
#: How much longer other widths take where that is worth a word.
COSTLY = 1.5
#: Where nothing was measured: the block of channels of the common kernels, as
#: the vendors write it. ONNX Runtime's convolutions on x86 work on 8 channels
#: (16 with AVX-512), tensor cores in half precision on multiples of 8.
ADVICE = dict(cpu=8, cuda=8)
_OFFSETS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32)


def probed_widths(full: int) -> List[int]:
    """Neighbouring widths at which steps show; none for narrow layers.

    Args:
        full (int): Channels of the layer, which none of them exceeds.
    """
    block = 32 if full >= 64 else 16
    if full < 2 * block:
        return []
    base = full // 32 * 32 - block
    return [base + offset for offset in _OFFSETS if offset <= block]


def saved(times: Mapping[int, float], divisor: int) -> Optional[float]:
    """Share of a straight line's saving that is there between multiples.

    Only halfway between them: whether the rest saves anything is a question
    of smaller steps.

    Args:
        times (Mapping[int, float]): Milliseconds by width.
        divisor (int): Whose multiples the line joins.

    Returns:
        float | None: About 1 on a device without steps, 0 with steps of this
        size; None where the time does not grow or no two multiples are known.
    """
    real = line = 0.
    for width, ms in times.items():
        low, high = width - divisor // 2, width + divisor // 2
        if low % divisor == 0 and low in times and high in times:
            real += times[high] - ms
            line += (times[high] - times[low]) / 2
    return real / line if line > 0 else None


def divisor_of(table: Mapping[str, Any]) -> Tuple[int, str]:
    """Of what widths should be multiples, and why.

    The largest step that the measured layers show, each counted in shares of
    its own time, depth-wise ones apart from the others; without measurements
    what is advised for the device.

    Args:
        table (Mapping): A table of latencies.
    """
    measured = table.get('steps')
    device = table['setting']['device']
    if not measured:
        if device not in ADVICE:
            raise LatencyError(
                f"divisor='auto': the table shows no steps of {device!r}, and "
                'there is no advice for it; give a number, such as 8')
        return ADVICE[device], (f'advised for {device}; this table has no '
                                'measurement of it')
    kinds = [[{
        int(width): ms
        for width, ms in times.items()
    } for key, times in measured.items() if (DEPTHWISE in key) is deep]
             for deep in (False, True)]
    found = max(_step_of(layers) for layers in kinds)
    if found == 1:
        return 1, f'no steps show in {len(measured)} layers of the table'
    return found, (f'a step that {len(measured)} layers of the table show')


def costly_widths(table: Mapping[str, Any], layout: Layout) -> Optional[str]:
    """What free widths cost on a device with steps, in words; None if nothing.

    Where a kernel is there for blocks of channels alone, other widths take
    longer: a search in steps gets more for its budget.

    Args:
        table (Mapping): A table of latencies.
        layout (Layout): The units that are searched.
    """
    if not table.get('steps'):
        return None
    divisor, _ = divisor_of(table)
    free = next((unit.name for unit in layout.units
                 if unit.kind == 'width' and any(n * unit.step % divisor
                                                 for n in unit.allowed[:-1])),
                None)
    if divisor == 1 or free is None:
        return None
    layers = [{
        int(width): ms
        for width, ms in times.items()
    } for key, times in table['steps'].items() if DEPTHWISE in key]
    factor = max(_factor(layers, divisor) for divisor in DIVISORS)
    deep = f', where depth-wise layers take up to {factor:.1f} times as long' \
        if factor >= COSTLY else ''
    return (f'widths pay in steps of {divisor} on this device, and "{free}" '
            f'may have any{deep}: search in steps, with '
            "units={'*': dict(divisor='auto')}, or a smaller divisor")


def _factor(layers: Sequence[Mapping[int, float]], divisor: int) -> float:
    """How much longer widths halfway between multiples take than those."""
    found = [
        2 * ms / (times[width - divisor // 2] + times[width + divisor // 2])
        for times in layers for width, ms in times.items()
        if (width - divisor // 2) %
        divisor == 0 and {width - divisor // 2, width +
                          divisor // 2} <= times.keys()
    ]
    return median(found) if found else 1.


def _step_of(layers: Sequence[Mapping[int, float]]) -> int:
    """The largest step of the middle one of some layers, 1 for none."""
    found = 1
    for divisor in DIVISORS:
        shares = sorted(
            share for share in (saved(times, divisor) for times in layers)
            if share is not None)
        if shares and shares[len(shares) // 2] <= SAVED:
            found = divisor
    return found


def resolved_divisor(divisor: Any,
                     table: Optional[Mapping[str, Any]]) -> Tuple[int, str]:
    """A divisor as a number, and whose wish it is.

    Args:
        divisor (int | str): A whole number from 1 on, or 'auto'.
        table (Mapping, optional): What 'auto' is worked out from.

    Raises:
        LatencyError: There is no table.
        ValueError: It is something else.
    """
    if divisor == AUTO:
        if table is None:
            raise LatencyError(
                "divisor='auto' is worked out from measurements: search under "
                'a latency, with latency_table=, or give a number, such as 8')
        return divisor_of(table)
    if type(divisor) is not int or divisor < 1:
        raise ValueError(f"divisor={divisor!r} is neither 'auto' nor a "
                         'positive whole number')
    return divisor, 'as was asked for'


def rounded(layout: Layout, divisor: int) -> Layout:
    """A layout whose widths keep multiples, or everything.

    Counts are in channels of a group. Of a unit no multiple of whose counts
    is allowed, what is allowed stays.

    Args:
        layout (Layout): The units.
        divisor (int): Whole.
    """
    return Layout([_rounded(unit, divisor) for unit in layout.units])


def _rounded(unit: Unit, divisor: int) -> Unit:
    if unit.kind in ('depth', 'heads', 'experts'):
        return unit
    kept = tuple(n for n in unit.allowed
                 if n * unit.step % divisor == 0 or n == unit.size)
    if not kept or kept == (unit.size, ):
        return unit
    return replace(unit, choices=kept, least=kept[0], most=kept[-1])


def resolved(tracing: Dict[str, Any], table: Union[None, str,
                                                   Path]) -> Dict[str, Any]:
    """Settings of a trace with a number in the place of ``divisor='auto'``.

    Args:
        tracing (dict): ``units``, name pattern -> options, and others.
        table (str | Path, optional): File of a table of latencies.

    Raises:
        LatencyError: There is no table, or it is none.
    """
    units = tracing.get('units')
    if not isinstance(units, dict) or not any(map(_automatic, units.values())):
        return tracing
    divisor, _ = resolved_divisor(AUTO, table and read_table(table))
    return with_divisor(tracing, divisor)


def with_divisor(tracing: Dict[str, Any], divisor: int) -> Dict[str, Any]:
    """The same with this number in the place of every 'auto'."""
    units = tracing.get('units')
    if not isinstance(units, dict):
        return tracing
    return dict(
        tracing,
        units={
            pattern:
            dict(options, divisor=divisor) if _automatic(options) else options
            for pattern, options in units.items()
        })


def _automatic(options: Any) -> bool:
    return isinstance(options, dict) and options.get('divisor') == AUTO
