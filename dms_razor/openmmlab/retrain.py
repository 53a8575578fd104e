# Copyright (c) dms_razor contributors. All rights reserved.
"""retrain.py: a config that trains the exported subnet.

It inherits a standard config, e.g. mmpretrain's, and replaces the model by
the subnet: data, schedule, hooks and evaluation are those of the base. It
names the manifest relative to itself, so the folder can be moved. Reading the
base needs mmengine, which is imported only then.
"""
import ast
import keyword
import logging
import math
import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..errors import SubnetError
from .retrain_recipe import merge_recipe, without_pretrained

IMPORT = 'dms_razor.openmmlab'
"""The module that registers ``DMSSubModel``."""


@dataclass
class RetrainConfig:
    """What a retrain config is made from.

    Args:
        base (str): The config to inherit: a name such as
            ``'mmpretrain::resnet/resnet50_8xb32_in1k.py'`` or the path of a
            local file.
        architecture (dict): Model config of the supernet, as the search has
            it under ``architecture``.
        recipe (bool): Whether ``base`` was written for another model than
            ``architecture``, so that its training settings (batch
            augmentation, losses, drop rates) are merged onto
            ``architecture``. False where ``architecture`` itself comes from
            ``base``. Defaults to False.
        overrides (dict, optional): Other top-level settings of the config,
            e.g. ``dict(train_dataloader=dict(batch_size=64))``.
        from_search (bool): Start from the searched weights (the finetuning
            of DMS_p) and not from scratch. Defaults to False.
    """
    base: str
    architecture: Dict[str, Any]
    recipe: bool = False
    overrides: Dict[str, Any] = field(default_factory=dict)
    from_search: bool = False

    def text(self) -> str:
        """Write the config.

        Nothing of a search is needed for it, so a search can call this
        before it starts to see whether the retrain config will be all right.

        Returns:
            str: The content of a retrain.py.

        Raises:
            SubnetError: The base cannot be read or has no model, or a
                setting cannot be written as Python text.
        """
        base = read_config(self.base)
        model, left = self._model(base)
        start = None
        note = 'From scratch; the searched weights are in subnet.pth.'
        if self.from_search:
            start = '{{ fileDirname }}/subnet.pth'
            note = 'From the searched weights; checkpoint=None: from scratch.'
        lines = [
            comment('Trains the network of subnet.json beside this file the '
                    f'way {self.base} trains its own.'),
            *[comment(f'Not taken over from there: {item}.') for item in left],
            assignment('_base_', self._base()),
            assignment('custom_imports', _imports(base)),
            '',
            comment(note),
            assignment(
                'model',
                dict(
                    _delete_=True,
                    type='DMSSubModel',
                    subnet='{{ fileDirname }}/subnet.json',
                    checkpoint=start,
                    cfg=model,
                    **_looked_at(model))),
        ]
        if base.get('load_from'):
            # weights that the base starts from are no subnet's
            lines.append(assignment('load_from', None))
        for name, value in self._settings(base).items():
            lines.append(assignment(name, without_pretrained(value)))
        return '\n'.join(lines) + '\n'

    def _settings(self, base: Dict) -> Dict[str, Any]:
        """Settings beside the model: the overrides, and collate functions.

        mmengine adds ``_scope_`` to what a config inherits from a package and
        hands it to the collate function, which does not know it.
        """
        settings = dict(self.overrides)
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            collate = (base.get(name) or {}).get('collate_fn')
            if isinstance(collate, dict):
                plain = {k: v for k, v in collate.items() if k != '_scope_'}
                settings[name] = dict(
                    dict(collate_fn=dict(_delete_=True, **plain)),
                    **settings.get(name, {}))
        return settings

    def _base(self) -> str:
        """The base as a retrain.py in any folder has to name it."""
        if '::' in self.base:
            return self.base
        return Path(os.path.abspath(self.base)).as_posix()

    def _model(self, base: Dict) -> Tuple[Dict, List[str]]:
        """The supernet's config with the training settings of the base."""
        model, left = self.architecture, []
        if self.recipe:
            if not isinstance(base.get('model'), dict):
                raise SubnetError(
                    f'The retrain base {self.base!r} has no model, so its '
                    'training settings are unknown. Name a whole config.')
            model, left = merge_recipe(model, base['model'],
                                       base.get('default_scope'))
        return without_pretrained(model), left


def standard_base(config: Union[str, Path]) -> str:
    """Find the standard config that a search config inherits.

    That is the base whose model is the network itself and not an algorithm
    around it; through several generations of bases if need be.

    Args:
        config (str | Path): File of the search's config.

    Returns:
        str: The base to pass to :class:`RetrainConfig`.

    Raises:
        SubnetError: No single base is a whole config of a network.
    """
    for base in _bases(str(config)):
        found = read_config(base).get('model')
        if not isinstance(found, dict):
            continue
        return base if 'architecture' not in found else standard_base(base)
    raise SubnetError(
        f'{str(config)!r} inherits no whole config of a standard network. '
        "Name one as the export's retrain_base, e.g. "
        "'mmpretrain::resnet/resnet50_8xb32_in1k.py'.")


def read_config(name: str) -> Dict[str, Any]:
    """Read a config by file or by a name such as ``'mmpretrain::…'``.

    Args:
        name (str): What a config may have as ``_base_``.

    Returns:
        dict: The whole config, bases merged.

    Raises:
        SubnetError: It cannot be read.
    """
    from mmengine.config import Config
    from mmengine.hub import get_config
    try:
        config = get_config(name) if '::' in name else Config.fromfile(name)
    except Exception as error:
        raise SubnetError(
            f'The config {name!r} cannot be read ({type(error).__name__}: '
            f'{error}). Name an existing config, and install the package '
            'that it is part of.') from error
    return config._cfg_dict


def _bases(config: str) -> List[str]:
    """List the bases that a config's text names."""
    if '::' in config:
        return []
    tree = ast.parse(Path(config).read_text(encoding='utf-8'))
    bases: List[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
                getattr(target, 'id', None) == '_base_'
                for target in node.targets):
            value = ast.literal_eval(node.value)
            bases = [value] if isinstance(value, str) else list(value)
    folder = os.path.dirname(os.path.abspath(config))
    return [
        base if '::' in base else os.path.normpath(os.path.join(folder, base))
        for base in bases
    ]


def _looked_at(model: Dict) -> Dict[str, Any]:
    """What mmdet's ``init_detector`` reads in the model of any config.

    It looks for the ``init_cfg`` of ``config.model.backbone``, whatever the
    type of the model, and fails if there is no backbone. DMSSubModel leaves
    the empty one aside.
    """
    classifier = 'head' in model
    return dict(backbone={}) if 'backbone' in model and not classifier else {}


def _imports(base: Dict) -> Dict[str, Any]:
    """The base's ``custom_imports`` with ours; a config replaces lists."""
    found = (base.get('custom_imports') or {}).get('imports', [])
    found = [found] if isinstance(found, str) else list(found)
    return dict(
        imports=found + [name for name in (IMPORT, ) if name not in found],
        allow_failed_imports=False)


# What the retrain config of a search is made from.


def retrain_config(cfg: Config,
                   base: Optional[str] = None,
                   overrides: Optional[dict] = None,
                   from_search: bool = False) -> Optional[RetrainConfig]:
    """Find out what a search's subnet is to be retrained with.

    Args:
        cfg (Config): The search's config.
        base (str, optional): A config with another training recipe. Defaults
            to the standard config that ``cfg`` inherits.
        overrides (dict, optional): Other settings of the retrain config.
        from_search (bool): Start from the searched weights.

    Returns:
        RetrainConfig | None: None, with a warning, where no ``base`` is named
        and ``cfg`` inherits none.

    Raises:
        SubnetError: If ``base`` cannot be read or does not fit the network.
    """
    architecture = cfg.model.get('architecture')
    recipe = base is not None
    try:
        if not isinstance(architecture, dict):
            raise SubnetError('The architecture is not given as a config.')
        if 'cfg_path' in architecture:
            base = base or architecture['cfg_path']
            architecture = read_config(architecture['cfg_path'])['model']
        elif not recipe:
            if cfg.filename is None:
                raise SubnetError('The search has no config file.')
            base = standard_base(cfg.filename)
    except SubnetError as error:
        if recipe:
            raise
        print_log(
            f'There will be no retrain config: {error} Name the config to '
            'inherit as retrain_base of ExportSubnetHook.',
            logger='current',
            level=logging.WARNING)
        return None
    if isinstance(architecture, ConfigDict):
        architecture = architecture.to_dict()
    config = RetrainConfig(
        base,
        architecture,
        recipe=recipe,
        overrides=overrides or {},
        from_search=from_search)
    config.text()  # whatever is wrong with it is said now
    return config


# Plain values as readable Python text, the way config files are written.

WIDTH = 79


def assignment(name: str, value: Any) -> str:
    """Write ``name = value``.

    Args:
        name (str): The variable.
        value (Any): Dicts, lists, tuples, strings, numbers, booleans, None.

    Returns:
        str: Python text, wrapped at 79 columns where lists and dicts allow.

    Raises:
        SubnetError: Something in ``value`` is none of these.
    """
    return f'{name} = {_text(value, name, 0, len(name) + 3)}'


def comment(text: str) -> str:
    """Write a comment, wrapped at 79 columns."""
    return '\n'.join(
        textwrap.wrap(
            text,
            WIDTH,
            initial_indent='# ',
            subsequent_indent='# ',
            break_long_words=False))


def _text(value: Any, where: str, indent: int, used: int) -> str:
    """Write a value on one line, or spread over several if it is too long.

    ``indent`` is that of the line the value starts on, ``used`` the columns
    of that line that are taken.
    """
    if isinstance(value, dict):
        plain = all(
            isinstance(key, str) and key.isidentifier()
            and not keyword.iskeyword(key) for key in value)
        opening, closing = ('dict(', ')') if plain else ('{', '}')
        items = [(f'{key}=' if plain else f'{_atom(key, where)}: ', part,
                  f'{where}.{key}') for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        opening, closing = '[]' if isinstance(value, list) else '()'
        items = [('', part, f'{where}[{number}]')
                 for number, part in enumerate(value)]
    else:
        return _atom(value, where)
    if isinstance(value, tuple) and len(value) == 1:
        closing = ',)'
    line = ', '.join(key + _text(part, place, 0, -10**6)
                     for key, part, place in items)
    if used + len(opening + line + closing) < WIDTH:
        return opening + line + closing
    inner = indent + 4
    lines = [
        ' ' * inner + key + _text(part, place, inner, inner + len(key))
        for key, part, place in items
    ]
    return opening + '\n' + ',\n'.join(lines) + closing


def _atom(value: Any, where: str) -> str:
    """Write a value without parts."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    # exact types: the repr of a subclass need not be Python text
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise SubnetError(
        f'{where} is a {type(value).__name__}, which cannot be written into '
        'a config as text. Name classes by their registered names, and use '
        'plain values.')
