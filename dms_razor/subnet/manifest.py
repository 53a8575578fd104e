# Copyright (c) dms_razor contributors. All rights reserved.
"""subnet.json: everything needed to build a subnet without a search.

The manifest does not depend on the tracer: it lists the shape of every
tensor, the widths that modules carry as attributes, and the removed blocks.
Beside that it records what was kept of each unit (section 3.1 of the paper)
and what the network costs. It is data: loading it runs no code, and a
checksum tells an edited or damaged file from a sound one.
"""
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

from ..errors import SubnetError
from ..network import fingerprint
from .files import write_text

FORMAT = 'dms_razor.subnet'
VERSION = 1


@dataclass
class Manifest:
    """What a subnet is.

    Attributes:
        model (dict): The supernet: ``type`` (class name), ``tensors`` (shape
            of every entry of its state dict) and their ``fingerprint``.
        inputs (Any): The example inputs that ``macs`` are counted on, as
            :func:`dms_razor.network.describe_inputs` puts it.
        metric (str): What was limited, ``'macs'`` or ``'params'``.
        target (float, optional): The limit in units of ``metric``.
        macs (dict): Multiply-accumulates of one forward pass: ``supernet``,
            ``searched`` (closed form) and ``counted`` (by another library);
            of one sample where ``inputs`` are a batch of ``samples``.
        params (dict): The same for parameters.
        units (list[dict]): Per unit ``name``, ``kind``, ``total`` and
            ``kept`` (elements per group), ``groups``, ``step``, ``members``
            and ``kept_index`` (kept elements of the unit, group by group).
        removed (list[str]): Paths of the removed blocks.
        modules (dict): Per module of the subnet ``type``, ``tensors`` (name
            to shape), ``attributes`` (name to width), ``macs`` (its own on
            all of ``inputs``, without its children's) and, for some, ``slim``
            (see :func:`dms_razor.adapters.registry.make_slim`).
        receives (dict): Shape of the one tensor that a module is called
            with, for modules with children: the input of a part.
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

    @property
    def shapes(self) -> Dict[str, List[int]]:
        """Shape of every tensor of the subnet, by its full name."""
        return {
            joined(path, name): shape
            for path, module in self.modules.items()
            for name, shape in module['tensors'].items()
        }

    def to_json(self) -> str:
        """Put the manifest into JSON, with its checksum.

        Returns:
            str: The text of a subnet.json.
        """
        content = dict(format=FORMAT, version=VERSION, **asdict(self))
        content['checksum'] = checksum(content)
        text = json.dumps(content, indent=1, allow_nan=False)
        # lists of numbers on one line, or a reader sees nothing else
        return re.sub(r'\[[\d,\s]*\]', _on_one_line, text) + '\n'

    @classmethod
    def from_json(cls, text: str, origin: str = 'The manifest') -> 'Manifest':
        """Read and check a manifest.

        Args:
            text (str): What :meth:`to_json` returned.
            origin (str): What to call it in messages.

        Returns:
            Manifest: The manifest.

        Raises:
            SubnetError: It is truncated, of another format or version, or
                was edited.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise SubnetError(
                f'{origin} is not readable as JSON ({error}): it is '
                'truncated or no manifest. Export the subnet again, or copy '
                'the file again.') from error
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            raise SubnetError(
                f'{origin} is no subnet manifest: its format is not '
                f'{FORMAT!r}. Name the subnet.json of an export.')
        if content.get('version') != VERSION:
            raise SubnetError(
                f'{origin} is of version {content.get("version")!r}, but '
                f'this dms_razor reads version {VERSION}. Export the subnet '
                'again with this dms_razor, or install the one it was '
                'exported with.')
        if content.pop('checksum', None) != checksum(content):
            raise SubnetError(
                f'{origin} does not match its checksum: it was edited or '
                'damaged. Use the file as exported; a subnet is changed by '
                'exporting again.')
        del content['format'], content['version']
        expected = {part.name for part in fields(cls)}
        if set(content) != expected:
            raise SubnetError(
                f'{origin} lacks or adds {sorted(expected ^ set(content))}. '
                'Export the subnet again.')
        return cls(**content)

    def save(self, path: Union[str, Path]) -> None:
        """Write the manifest to a file, which appears whole.

        Args:
            path (str | Path): Where to, e.g. ``subnet.json``.
        """
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'Manifest':
        """Read a manifest from a file.

        Args:
            path (str | Path): A subnet.json or the folder of an export.

        Returns:
            Manifest: The manifest.

        Raises:
            SubnetError: There is no such file, or :meth:`from_json` refuses
                it.
        """
        path = Path(path)
        if path.is_dir():
            path = path / 'subnet.json'
        try:
            text = path.read_text(encoding='utf-8')
        except FileNotFoundError as error:
            raise SubnetError(
                f'There is no manifest {str(path)!r}. Name the subnet.json '
                'of an export.') from error
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
        macs = {}
        if prefix in self.receives:
            macs['counted'] = sum(module['macs']
                                  for module in modules.values())
        tensors = _below(self.model['tensors'], prefix)
        return Manifest(
            model=dict(
                type=modules['']['type'],
                tensors=tensors,
                fingerprint=fingerprint(tensors)),
            inputs=self.receives.get(prefix),
            metric=self.metric,
            target=None,
            macs=macs,
            params={},
            units=self.units,
            removed=list(_below(dict.fromkeys(self.removed), prefix)),
            modules=modules,
            receives=_below(self.receives, prefix))


def checksum(content: Mapping[str, Any]) -> str:
    """Compute the checksum of a manifest's content.

    Args:
        content (Mapping): The JSON object without its checksum.

    Returns:
        str: SHA-256 of its canonical JSON, in hexadecimal.
    """
    canonical = json.dumps(
        content, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def joined(path: str, name: str) -> str:
    """Join the path of a module and a name in it with a dot."""
    return f'{path}.{name}' if path else name


def _on_one_line(found: 're.Match') -> str:
    """Join a list of numbers that spreads over several lines."""
    return ' '.join(found[0].split()).replace('[ ', '[').replace(' ]', ']')


def _below(entries: Mapping[str, Any], prefix: str) -> Dict[str, Any]:
    """Select what lies at or below a path, with names relative to it."""
    selected = {}
    for name, value in entries.items():
        if name == prefix:
            selected[''] = value
        elif name.startswith(prefix + '.'):
            selected[name[len(prefix) + 1:]] = value
    return selected
