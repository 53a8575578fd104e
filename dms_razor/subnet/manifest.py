# Copyright (c) dms_razor contributors. All rights reserved.
"""subnet.json: everything needed to build a subnet without a search.

:func:`describe_subnet` makes a :class:`Manifest` of a subnet that was just
cut. The manifest does not depend on the tracer: it lists the shape of every
tensor, the widths that modules carry as attributes, and the removed blocks.
Beside that it records what was kept of each unit (section 3.1 of the paper)
and what the network costs. It is data: loading it runs no code, and a
checksum tells an edited or damaged file from a sound one.
"""
import hashlib
import json
import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Union

import torch
from torch import Tensor, nn

from ..adapters.registry import RemovedBlock
from ..core.resource import METRICS
from ..counting import Count
from ..errors import SubnetError
from ..network import (call, describe_inputs, fingerprint, named_tensors,
                       state_shapes, untouched)
from ..space import Space, StandIn
from .files import write_text
from .schema import MOST_TEXT, check, parse
from .slicing import get_width, inside, removed_blocks, stand_ins

FORMAT = 'dms_razor.subnet'
VERSION = 1
#: What a file lacks where there is none of it.
OPTIONAL = ('others', 'branches', 'limits', 'measured')


@dataclass
class Manifest:
    """What a subnet is.

    Attributes:
        model (dict): The supernet: ``type`` (class name), ``tensors`` (shape
            of every entry of its state dict) and their ``fingerprint``.
        inputs (Any): The example inputs that ``macs`` are counted on, as
            :func:`dms_razor.network.inputs.describe_inputs` puts it.
        metric (str): What was limited; of several, what the subnet comes
            nearest to.
        target (float, optional): The limit in units of ``metric``.
        macs (dict): Multiply-accumulates of one forward pass: ``supernet``,
            ``searched`` (closed form) and ``counted`` (by another library);
            of one sample where ``inputs`` are a batch of ``samples``.
        params (dict): The same for parameters.
        units (list[dict]): Per unit ``name``, ``kind``, ``total`` and
            ``kept`` (elements per group), ``groups``, ``step``, ``members``
            and ``kept_index`` (kept elements of the unit, group by group).
        removed (list[str]): Paths of the modules that were removed.
        modules (dict): Per module of the subnet ``type``, ``tensors`` (name
            to shape), ``attributes`` (name to width), ``macs`` (its own on
            all of ``inputs``, without its children's) and, for some, ``slim``
            (see :func:`dms_razor.adapters.registry.make_slim`).
        receives (dict): Shape of the one tensor that a module is called
            with, for modules with children: the input of a part.
        others (dict): The same as ``macs`` for each further metric of
            :data:`dms_razor.core.resource.METRICS`, without ``counted`` where
            nothing counts it; not in the file where there is none.
        branches (dict): Removed modules in whose place is no identity: path
            -> ``[zero, outputs]`` of :class:`~dms_razor.space.StandIn`; not
            in the file where there is none.
        limits (dict): Where several metrics were limited, each limit; not in
            the file where there is none.
        measured (dict): Under a latency that was measured, milliseconds:
            ``limit``, ``predicted``, ``measured`` and its ``spread``; not in
            the file where there is none.
    """
    model: Dict[str, Any]
    inputs: Any
    metric: str
    target: Optional[float]
    macs: Dict[str, int]
    params: Dict[str, int]
    units: List[Dict[str, Any]]
    removed: List[str]
    modules: Dict[str, Dict[str, Any]]
    receives: Dict[str, Any] = field(default_factory=dict)
    others: Dict[str, Dict[str, float]] = field(default_factory=dict)
    branches: Dict[str, List[int]] = field(default_factory=dict)
    limits: Dict[str, float] = field(default_factory=dict)
    measured: Dict[str, float] = field(default_factory=dict)

    @property
    def stand_ins(self) -> List[StandIn]:
        """What stands where no identity stands for a removed module."""
        return [
            StandIn(path, bool(zero), outputs)
            for path, (zero, outputs) in self.branches.items()
        ]

    @property
    def costs(self) -> Dict[str, Dict[str, float]]:
        """What the network costs in each metric."""
        return dict(macs=self.macs, params=self.params, **self.others)

    @property
    def shapes(self) -> Dict[str, List[int]]:
        """Shape of every tensor of the subnet, by its full name."""
        return {
            joined(path, name): shape
            for path, module in self.modules.items()
            for name, shape in module['tensors'].items()
        }

    def to_json(self) -> str:
        """The text of a subnet.json: JSON with a checksum."""
        content = dict(format=FORMAT, version=VERSION, **asdict(self))
        for name in OPTIONAL:
            if not content[name]:
                del content[name]
        content['checksum'] = checksum(content)
        text = json.dumps(content, indent=1, allow_nan=False)
        # lists of numbers on one line, or a reader sees nothing else
        return re.sub(
            r'\[[\d,\s]*\]', lambda numbers: ' '.join(numbers[0].split()).
            replace('[ ', '[').replace(' ]', ']'), text) + '\n'

    @classmethod
    def from_json(cls, text: str, origin: str = 'The manifest') -> 'Manifest':
        """Read and check a manifest.

        Args:
            text (str): What :meth:`to_json` returned.
            origin (str): What to call it in messages.

        Raises:
            SubnetError: It is truncated, of another format or a newer
                version, was edited, or :func:`.schema.check` refuses it.
        """
        content = parse(text, origin)
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            raise SubnetError(
                f'{origin} is no subnet manifest: its format is not '
                f'{FORMAT!r}. Name the subnet.json of an export.')
        version = content.get('version')
        if type(version) is not int or not 1 <= version <= VERSION:
            raise SubnetError(
                f'{origin} is of version {version!r:.60}, but this dms_razor '
                f'reads versions up to {VERSION}. Install the newer dms_razor '
                'that it was exported with, or export the subnet with this '
                'one.')
        if content.pop('checksum', None) != checksum(content):
            raise SubnetError(
                f'{origin} does not match its checksum: it was edited or '
                'damaged. Use the file as exported; a subnet is changed by '
                'exporting again.')
        del content['format'], content['version']
        odd = {part.name for part in fields(cls)} ^ {*content, *OPTIONAL}
        if odd:
            raise SubnetError(f'{origin} lacks or adds {sorted(odd)}. '
                              'Export the subnet again.')
        check(content, origin)
        return cls(**content)

    def save(self, path: Union[str, Path]) -> None:
        """Write the manifest to a file, which appears whole."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'Manifest':
        """Read a manifest from a file.

        Args:
            path (str | Path): A subnet.json or the folder of an export.

        Raises:
            SubnetError: There is no such file, or :meth:`from_json` refuses
                it.
        """
        path = Path(path)
        if path.is_dir():
            path = path / 'subnet.json'
        try:
            with path.open(encoding='utf-8') as file:
                text = file.read(MOST_TEXT + 1)
        except FileNotFoundError as error:
            raise SubnetError(
                f'There is no manifest {str(path)!r}. Name the subnet.json '
                'of an export.') from error
        except OSError as error:
            raise SubnetError(f'{str(path)!r} cannot be read: {error}. Name '
                              'the subnet.json of an export.') from error
        except UnicodeDecodeError as error:
            raise SubnetError(
                f'{str(path)!r} is not text: it is damaged or no manifest. '
                'Name the subnet.json of an export.') from error
        return cls.from_json(text, origin=repr(str(path)))

    def part(self, prefix: str) -> 'Manifest':
        """Return the manifest of one submodule, e.g. of ``'backbone'``.

        Args:
            prefix (str): Path of the submodule, with or without a final dot;
                empty for the whole network.

        Returns:
            Manifest: With names relative to the submodule. Its ``macs`` are
            empty if the submodule does not take a single tensor, ``params``
            always are: shapes say the same.

        Raises:
            SubnetError: The subnet has no such submodule.
        """
        prefix = prefix.rstrip('.')
        if not prefix:
            return self
        modules = _below(self.modules, prefix)
        if not modules:
            raise SubnetError(
                f'The subnet has no part {prefix!r}. Its parts are '
                f'{sorted(p for p in self.modules if p and "." not in p)}.')
        macs = sum(module['macs'] for module in modules.values())
        return replace(
            self,
            model=_model(modules['']['type'],
                         _below(self.model['tensors'], prefix)),
            inputs=self.receives.get(prefix),
            target=None,
            macs=dict(counted=macs) if prefix in self.receives else {},
            params={},
            removed=list(_below(dict.fromkeys(self.removed), prefix)),
            modules=modules,
            receives=_below(self.receives, prefix),
            branches=_below(self.branches, prefix),
            others={},
            measured={})


def describe_subnet(supernet: nn.Module,
                    subnet: nn.Module,
                    space: Space,
                    selection: Tensor,
                    inputs: Any,
                    counts: Mapping[str, Count],
                    *,
                    forward: Optional[Callable] = None,
                    metric: str = 'macs',
                    target: Optional[float] = None) -> Manifest:
    """Describe a subnet that was just cut.

    Args:
        supernet (nn.Module): The supernet, masked or not.
        subnet (nn.Module): What ``slice_model(supernet, space, selection)``
            gave.
        space (Space): The space.
        selection (Tensor): Bool of shape [E].
        inputs (Any): Example inputs, those of ``counts``.
        counts (Mapping[str, Count]): What the subnet costs by metric.
        forward, metric, target: See :func:`~dms_razor.subnet.export_subnet`.
    """
    costs = {}
    for name in space.resource.metrics:
        costs[name] = dict(
            supernet=space.cost(torch.ones_like(selection), name),
            searched=space.cost(selection, name))
        if name in counts:
            samples = space.batch_size if METRICS[name].per_sample else 1
            costs[name]['counted'] = counts[name].of_one(samples).total
            if samples > 1:
                costs[name]['samples'] = samples
    return Manifest(
        model=_model(type(supernet).__name__, state_shapes(supernet)),
        inputs=describe_inputs(inputs),
        metric=metric,
        target=None if target is None else float(target),
        macs=costs.pop('macs'),
        params=costs.pop('params'),
        units=_units(space, selection),
        removed=removed_blocks(space, selection),
        modules=_modules(subnet, space, removed_blocks(space, selection),
                         counts['macs']),
        receives=_receives(subnet, inputs, forward),
        others=costs,
        branches={
            part.path: [int(part.zero), part.outputs]
            for part in stand_ins(space, selection)
            if part.zero or part.outputs
        })


def _model(kind: str, tensors: Dict[str, List[int]]) -> Dict[str, Any]:
    return dict(type=kind, tensors=tensors, fingerprint=fingerprint(tensors))


def _units(space: Space, selection: Tensor) -> List[Dict[str, Any]]:
    """Say what is kept of each unit."""
    return [
        dict(
            name=unit.name,
            kind=unit.kind,
            total=unit.size,
            kept=int(row[0].sum()),
            groups=unit.groups,
            step=unit.step,
            members=list(unit.members),
            kept_index=row.flatten().nonzero().flatten().tolist())
        for unit, row in zip(space.units, space.rows(selection))
    ]


def _modules(subnet: nn.Module, space: Space, removed: List[str],
             count: Count) -> Dict[str, Dict]:
    """Say what each module of the subnet is and owns."""
    modules: Dict[str, Dict[str, Any]] = {
        path:
        dict(
            # as ever, whatever class stands there
            type=RemovedBlock.__name__
            if path in removed else type(module).__name__,
            tensors={},
            attributes={},
            macs=count.by_module.get(path, 0))
        for path, module in subnet.named_modules(remove_duplicate=False)
    }
    # what a checkpoint holds, and sliced buffers that it does not hold
    names = {*state_shapes(subnet), *space.slice_sites}
    for name, tensor in named_tensors(subnet).items():
        if name in names:
            path, _, own = name.rpartition('.')
            modules[path]['tensors'][own] = list(tensor.shape)
    for path in modules.keys() & space.replacements.keys():
        if not inside(path, removed):
            modules[path]['slim'] = space.replacements[path]
    for path, attributes in space.attributes.items():
        if not inside(path, removed):
            modules[path]['attributes'] = {
                name: get_width(subnet.get_submodule(path), path, name)
                for name in attributes
            }
    return modules


def _receives(subnet: nn.Module, inputs: Any,
              forward: Optional[Callable]) -> Dict[str, Any]:
    """Record what modules with children are called with, if one tensor."""
    receives: Dict[str, Any] = {}

    def note(path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:
            receives.setdefault(path, describe_inputs(args[0]))

    with untouched(subnet), ExitStack() as hooks:
        for path, module in subnet.named_modules():
            if path and next(module.children(), None) is not None:
                hooks.enter_context(
                    module.register_forward_pre_hook(
                        partial(note, path), with_kwargs=True))
        call(subnet, inputs, forward)
    return receives


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's canonical JSON without its checksum, in hex."""
    return hashlib.sha256(
        json.dumps(
            content, sort_keys=True, separators=(',', ':'),
            allow_nan=False).encode()).hexdigest()


def joined(path: str, name: str) -> str:
    """Join the path of a module and a name in it with a dot."""
    return f'{path}.{name}' if path else name


def _below(entries: Mapping[str, Any], prefix: str) -> Dict[str, Any]:
    """Select what lies at or below a path, with names relative to it."""
    return {
        name[len(prefix) + 1:]: value
        for name, value in entries.items()
        if name == prefix or name.startswith(prefix + '.')
    }
