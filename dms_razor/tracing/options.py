# Copyright (c) dms_razor contributors. All rights reserved.
"""What users can say about units by name pattern."""
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from ..core.layout import KINDS, Unit
from ..errors import listed, nearest

LAYERS = ('free', 'tied')
INDIVISIBLE = 'no multiple of the step'
"""Why a width stays whose channels a divisor does not divide."""
DIVIDE = 'Give a divisor that divides them, or leave it out.'
OPTIONS = ('fixed', 'divisor', 'least', 'most', 'choices')


@dataclass
class Options:
    """What may be removed, and what is left alone.

    Args:
        units (dict[str, dict], optional): Name pattern (as in fnmatch) of
            units or layers -> ``fixed=True``, ``divisor`` (channels that go
            together), ``least`` and ``most`` (bounds on what is kept, in
            channels a group, or in blocks), ``choices`` (the numbers that
            may be kept, counted in the same way). Later patterns win.
        width, depth, heads, qk, v, experts (bool): Whether widths, blocks,
            attention heads, query/key dims, value dims and experts are
            searched. Default to True.
        only (str | Sequence[str], optional): Name patterns of the layers and
            blocks that are searched, e.g. ``'backbone.*'``; a unit with a
            member elsewhere stays. By default the whole network.
        frozen (bool): Whether layers that do not train
            (``requires_grad=False``) are searched too. With False their
            weights stay as they are. Defaults to True.
        layers (str): 'free', every unit has a ratio of its own, or 'tied',
            units of layers that are alike share one, see
            :mod:`dms_razor.tracing.tying`. Defaults to 'free'.

    Raises:
        TypeError: A switch is no bool, or ``only`` is no pattern.
        ValueError: An option of a unit is unknown or no positive whole
            number, or ``layers`` is another word.
    """
    units: Optional[Dict[str, dict]] = None
    width: bool = True
    depth: bool = True
    heads: bool = True
    qk: bool = True
    v: bool = True
    experts: bool = True
    only: Union[None, str, Sequence[str]] = None
    frozen: bool = True
    layers: str = 'free'

    def __post_init__(self) -> None:
        for name in (*KINDS, 'frozen'):
            switch = getattr(self, name)
            if not isinstance(switch, bool):  # 'no' would switch it on
                raise TypeError(f'{name}={switch!r} is neither True nor '
                                f'False; it says whether {name} is searched')
        if self.layers not in LAYERS:
            raise ValueError(f'layers={self.layers!r} is not known, use one '
                             f'of {", ".join(LAYERS)}')
        self.units = check_options(self.units or {})
        only = (self.only, ) if isinstance(self.only, str) else self.only
        if only is not None and not (isinstance(only, (list, tuple)) and only
                                     and all(isinstance(p, str)
                                             for p in only)):
            raise TypeError(f'only={self.only!r} is no name pattern and no '
                            "list of them, such as 'backbone.*'")
        self.only = None if only is None else tuple(only)

    @property
    def kinds(self) -> List[str]:
        """The kinds of units that are searched."""
        return [kind for kind in KINDS if getattr(self, kind)]

    def check_only(self, modules: Iterable[str],
                   members: Iterable[str]) -> None:
        """Raise ValueError if a pattern of ``only`` has nothing to say.

        Args:
            modules (Iterable[str]): All modules of the network.
            members (Iterable[str]): Those that units have as members.
        """
        modules, members = list(modules), set(members)
        for pattern in self.only or ():
            found = [m for m in modules if matches(m, pattern)]
            if found and members.isdisjoint(found) and all(
                    any(
                        m.startswith(f'{path}.' * bool(path)) and m != path
                        for m in modules) for path in found):
                whole = f'{pattern}.*' if pattern else '*'
                raise ValueError(
                    f'only={pattern!r} names "{found[0]}" and none of the '
                    'layers in it, so that nothing there would be searched. '
                    f'Write only={whole!r}.')
            if not found:
                raise ValueError(
                    f'only={pattern!r} matches no module of this network. Its '
                    'parts are: '
                    f'{listed([m for m in modules if m and "." not in m])}. '
                    'Correct the pattern.')

    def outside(self, members: Sequence[str]) -> Optional[str]:
        """Why a unit of such members stays; None if it is searched."""
        if self.only is None:
            return None
        others = [
            member for member in members
            if not any(matches(member, pattern) for pattern in self.only)
        ]
        names = ', '.join(map(repr, self.only))
        return f'"{others[0]}" is not in only={names}' if others else None


def matches(name: str, pattern: str) -> bool:
    """Whether a name is meant: as in fnmatch, or letter by letter.

    Names of units may hold brackets, as in ``stem[1]``.
    """
    return name == pattern or fnmatchcase(name, pattern)


def check_options(units: Dict[str, dict]) -> Dict[str, dict]:
    """Check the options of units; see :func:`dms_razor.trace`.

    Raises:
        TypeError: Options are no dict, or ``fixed`` is no bool.
        ValueError: An option is unknown or no positive whole number.
    """
    if not isinstance(units, dict):
        raise TypeError(
            f'units is {units!r}; give a dict of name patterns and options, '
            "e.g. {'*.conv1': dict(divisor=8)}. On a command line: "
            '--cfg-options model.mutator.units.NAME.divisor=8')
    for pattern, options in units.items():
        if not isinstance(options, dict):
            raise TypeError(f'units["{pattern}"] is {options!r}; give a dict '
                            'of options, e.g. dict(fixed=True)')
        for key, value in options.items():
            if key not in OPTIONS:
                raise ValueError(
                    f'units["{pattern}"] has the unknown option "{key}", use '
                    f'{", ".join(OPTIONS)}{nearest(key, OPTIONS)}')
            whole = type(value) is int and value >= (key != 'least')
            if key == 'choices' and not (isinstance(value, (list, tuple))
                                         and value and all(
                                             type(n) is int and n >= 0
                                             for n in value)):
                raise ValueError(
                    f'units["{pattern}"]: choices={value!r} is no list of the '
                    'channels, heads or blocks that may be kept')
            if key == 'fixed' and not isinstance(value, bool):
                raise TypeError(f'units["{pattern}"]: fixed={value!r} is '
                                'neither True nor False')
            if key not in ('choices', 'fixed') and not whole:
                raise ValueError(f'units["{pattern}"]: {key}={value!r} is no '
                                 'positive whole number')
    return units


def check_divisor(pattern: str, divisor: int, stays: Iterable[Any]) -> None:
    """Raise ValueError if a divisor leaves no width that it is meant for.

    Args:
        pattern (str): Whose divisor it is.
        divisor (int): The divisor.
        stays (Iterable[FullWidth]): What stays, with its reason.
    """
    odd = [
        stay for stay in stays
        if INDIVISIBLE in stay.reason and matches(stay.module, pattern)
    ]
    if odd:
        raise ValueError(
            f'units["{pattern}"]: divisor={divisor} fits none of the widths '
            f'that it is meant for ("{odd[0].module}": {odd[0].reason}), so '
            f'that all of them would stay. {DIVIDE}')


def two_stay(options: dict, size: int) -> Optional[dict]:
    """Options of a unit of single channels of which one alone cannot stay.

    Returns:
        dict | None: None if there is nothing left to choose.
    """
    fewest = max(2, options.get('least', 2))
    allowed = [
        n for n in options.get('choices',
                               range(fewest,
                                     options.get('most', size) + 1)) if n > 1
    ]
    if allowed in ([], [size]):
        return None
    return dict(
        options, choices=allowed) if 'choices' in options else dict(
            options, least=allowed[0])


def at_least(name: str, options: dict, fewest: int, size: int,
             step: int) -> dict:
    """Options of a unit of which no fewer may stay.

    Raises:
        ValueError: The user's bounds allow fewer.
    """
    if fewest == 1:
        return options
    given = [options[key] for key in ('least', 'most') if key in options]
    if min((*given, *options.get('choices', ())), default=fewest) < fewest:
        raise ValueError(
            f'unit "{name}": the network takes {fewest} of its {size} '
            'elements each time, and the options of the unit allow fewer. '
            f'Give no bound and no choice below {fewest}')
    if 'least' in options or 'choices' in options:
        return options
    return dict(options, least=-(-fewest // step) * step)


def make_unit(name: str, kind: str, size: int, groups: int, step: int,
              options: dict, members: Tuple[str, ...]) -> Unit:
    """A unit of ``size`` channels a group with the user's bounds.

    Raises:
        ValueError: A bound is no multiple of the step.
    """
    bounds = {}
    for key in ('least', 'most'):
        bound = options.get(key)
        if bound is not None and bound % step:
            raise ValueError(f'unit "{name}": {key}={bound} channels are no '
                             f'multiple of its step {step}')
        bounds[key] = None if bound is None else bound // step
    choices = options.get('choices')
    if choices is not None:
        odd = [choice for choice in choices if choice % step]
        if odd:
            raise ValueError(f'unit "{name}": the choice of {odd[0]} channels '
                             f'is no multiple of its step {step}')
        bounds['choices'] = tuple(choice // step for choice in choices)
    return Unit(
        name, kind, size // step, groups, step, members=members, **bounds)
