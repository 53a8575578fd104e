# Copyright (c) dms_razor contributors. All rights reserved.
"""The state of an evolution as JSON.

MMRazor pickles its candidates, and reading a pickle runs whatever it says.
Here nothing but numbers and the names of units is read back, and each is
compared with the network first: MMRazor keeps the text of the choices and
evaluates it.
"""
import json
from pathlib import Path
from typing import Any, Dict, List, Union

from mmrazor.structures import Candidates

from ..core.plain_json import loads
from ..errors import SubnetError
from ..subnet.files import write_text
from .mutator import DMSMutator

VERSION = 1
POOLS = ('candidates', 'top_k_candidates', 'samples')
NAME = 'search_epoch_{}.json'


def entries(pool: Candidates) -> List[Dict[str, Any]]:
    """Candidates as plain dicts: ``choices``, ``score`` and costs."""
    if not len(pool):
        return []
    return [
        dict(choices=choices, **next(iter(item.values())))
        for choices, item in zip(pool.subnets, pool.data)
    ]


def candidates_of(listed: List[Dict[str, Any]]) -> Candidates:
    """The reverse of :func:`entries`."""
    return Candidates([{
        str(entry['choices']): {
            name: value
            for name, value in entry.items() if name != 'choices'
        }
    } for entry in listed])


def write_state(path: Union[str, Path], state: Dict[str, Any]) -> None:
    """Write the state of an evolution, whole or not at all.

    Args:
        path (str | Path): Destination.
        state (dict): Numbers, and a :class:`Candidates` for each of
            :data:`POOLS`.
    """
    pools = {name: entries(state[name]) for name in POOLS}
    write_text(path, json.dumps(dict(state, version=VERSION, **pools)))


def read_state(path: Union[str, Path], mutator: DMSMutator) -> Dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Args:
        path (str | Path): A file of :func:`write_state`.
        mutator (DMSMutator): Of the network that evolves.

    Raises:
        SubnetError: It is no such file, or the choices are not those of this
            network.
    """
    origin = f'the evolution in {str(path)!r}'
    try:
        state = loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise SubnetError(
            f'{origin} cannot be read ({error}); name a {NAME.format("N")} '
            'that an evolution wrote. Files of MMRazor (.pkl) are not read: '
            'they may run code.') from error
    if not isinstance(state, dict) or state.get('version') != VERSION or any(
            not isinstance(state.get(name), list) for name in POOLS):
        raise SubnetError(f'{origin} lacks {", ".join(POOLS)} or is not of '
                          f'version {VERSION}; name a {NAME.format("N")} that '
                          'an evolution wrote')
    for name in POOLS:
        for number, entry in enumerate(state[name]):
            _check(entry, mutator, f'{origin}: {name}[{number}]')
        state[name] = candidates_of(state[name])
    return state


def _check(entry: Any, mutator: DMSMutator, where: str) -> None:
    """Refuse a candidate that is no network of the mutator's."""
    choices = entry.get('choices') if isinstance(entry, dict) else None
    if not isinstance(choices, dict) or {*choices} != {
            unit.name
            for unit in mutator.mutable_units
    }:
        raise SubnetError(f'{where} does not name the units of this network; '
                          'resume with the config that it was begun with')
    values = [*choices.values(), *(entry[k] for k in entry if k != 'choices')]
    if any(type(value) not in (int, float) for value in values):
        raise SubnetError(f'{where} holds something else than numbers; the '
                          'file was changed, take another one')
    try:
        mutator.counts_of(choices)
    except (ValueError, TypeError) as error:
        raise SubnetError(f'{where}: {error}; resume with the config that it '
                          'was begun with') from error
