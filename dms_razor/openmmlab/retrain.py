# Copyright (c) dms_razor contributors. All rights reserved.
"""retrain.py: a config that trains the exported subnet.

It inherits a standard config, e.g. mmpretrain's, and replaces the model by
the subnet: data, schedule, hooks and evaluation are those of the base. All it
names is an installed package's or lies beside it, so the folder can be moved:
the manifest, the weights and, where the base was a local file, all of that
base in a base.py of its own.
"""
import ast
import keyword
import logging
import os.path as osp
import sys
import textwrap
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import print_log
from yapf.yapflib.yapf_api import FormatCode

from ..errors import SubnetError
from .retrain_recipe import merge_recipe, without_pretrained

IMPORT = 'dms_razor.openmmlab'
"""The module that registers ``DMSSubModel``."""

STYLE = dict(
    based_on_style='pep8', split_before_expression_after_opening_paren=True)
"""yapf's settings for written configs, as mmengine dumps its own."""


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
        """The content of retrain.py; see :meth:`files`."""
        return self.files()['retrain.py']

    def files(self) -> Dict[str, str]:
        """Write the config.

        Nothing of a search is needed for it, so a search can call this
        before it starts to see whether the retrain config will be all right.

        Returns:
            dict[str, str]: The content of ``retrain.py`` and, where the base
            is a local file, of the ``base.py`` that retrain.py inherits from
            its own folder: the base with all of its own bases. What mmengine
            puts in while it reads a config (``{{ fileDirname }}``,
            environment variables) stands there as it was read.

        Raises:
            SubnetError: The base cannot be read or has no model, or a
                setting cannot be written as Python text.
        """
        base = read_config(self.base)
        name, inherited = self.base, self.base
        if '::' not in self.base:
            name, inherited = Path(self.base).name, './base.py'
        imports = (base.get('custom_imports') or {}).get('imports', [])
        imports = [imports] if isinstance(imports, str) else list(imports)
        known = {
            *sys.stdlib_module_names, *packages_distributions(), 'dms_razor'
        }
        model, notes = self._model(base)
        lines = [
            comment('Trains the network of subnet.json beside this file the '
                    f'way {name} trains its own.'),
            *map(comment, notes),
            # modules that a moved folder could not import
            *(comment(f'{module} is of no installed package: put the folder '
                      'that holds it on PYTHONPATH.')
              for module in imports if module.partition('.')[0] not in known),
            assignment('_base_', inherited),
            # a config replaces lists
            assignment(
                'custom_imports',
                dict(
                    imports=list(dict.fromkeys([*imports, IMPORT])),
                    allow_failed_imports=False)),
            '',
            comment('From the searched weights; checkpoint=None: from scratch.'
                    if self.from_search else 'From scratch; the searched '
                    'weights are in subnet.pth.'),
            assignment('model', model),
            *_assignments(without_pretrained(self._settings(base)))
        ]
        files = {'retrain.py': _formatted(lines)}
        if inherited != self.base:
            files['base.py'] = _formatted([
                comment(f'{name} and all that it inherited, as they were when '
                        'the subnet was exported.'), *_assignments(base)
            ])
        return files

    def _settings(self, base: Dict) -> Dict[str, Any]:
        """Settings beside the model.

        mmengine adds ``_scope_`` to what a config inherits from a package and
        hands it to the collate function, which does not know it.
        """
        # weights that the base starts from are no subnet's
        settings = dict(load_from=None) if base.get('load_from') else {}
        settings.update(self.overrides)
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            collate = (base.get(name) or {}).get('collate_fn')
            if isinstance(collate, dict):
                plain = {k: v for k, v in collate.items() if k != '_scope_'}
                settings[name] = {
                    'collate_fn': dict(_delete_=True, **plain),
                    **settings.get(name, {})
                }
        return settings

    def _model(self, base: Dict) -> Tuple[Dict[str, Any], List[str]]:
        """The subnet, with the training settings of the base; and notes."""
        cfg, left = self.architecture, []
        if self.recipe:
            if not isinstance(base.get('model'), dict):
                raise SubnetError(
                    f'The retrain base {self.base!r} has no model, so its '
                    'training settings are unknown. Name a whole config.')
            cfg, left = merge_recipe(cfg, base['model'],
                                     base.get('default_scope'))
        model = dict(
            _delete_=True,
            type='DMSSubModel',
            subnet='{{ fileDirname }}/subnet.json',
            checkpoint='{{ fileDirname }}/subnet.pth'
            if self.from_search else None,
            cfg=without_pretrained(cfg))
        if 'backbone' in cfg and 'head' not in cfg:
            # mmdet's init_detector looks for the init_cfg of model.backbone,
            # whatever the model's type, and fails if there is no backbone;
            # DMSSubModel leaves the empty one aside
            model['backbone'] = {}
        return model, [f'Not taken over from there: {item}.' for item in left]


def retrain_config(cfg: Config,
                   base: Optional[str] = None,
                   overrides: Optional[dict] = None,
                   from_search: bool = False) -> Optional[RetrainConfig]:
    """Find out what a search's subnet is to be retrained with.

    Args:
        cfg (Config): The search's config.
        base (str, optional): A config with another training recipe. Defaults
            to the standard config that ``cfg`` inherits.
        overrides, from_search: See :class:`RetrainConfig`.

    Returns:
        RetrainConfig | None: None, with a warning, where no ``base`` is named
        and ``cfg`` inherits none.

    Raises:
        SubnetError: If ``base`` cannot be read or does not fit the network.
    """
    architecture = cfg.to_dict()['model'].get('architecture')
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
    config = RetrainConfig(base, architecture, recipe, overrides or {},
                           from_search)
    config.files()  # whatever is wrong with it is said now
    return config


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
    config = str(config)
    for base in [] if '::' in config else Config._get_base_files(config):
        if '::' not in base:
            base = osp.abspath(osp.join(osp.dirname(config), base))
        found = read_config(base).get('model')
        if isinstance(found, dict):
            return base if 'architecture' not in found else standard_base(base)
    raise SubnetError(
        f'{config!r} inherits no whole config of a standard network. '
        "Name one as the export's retrain_base, e.g. "
        "'mmpretrain::resnet/resnet50_8xb32_in1k.py'.")


def read_config(name: str) -> Dict[str, Any]:
    """Read a whole config by what another may have as its ``_base_``.

    Raises:
        SubnetError: It cannot be read.
    """
    try:
        config = get_config(name) if '::' in name else Config.fromfile(name)
        return config.to_dict()
    except Exception as error:
        raise SubnetError(
            f'The config {name!r} cannot be read ({type(error).__name__}: '
            f'{error}). Name an existing config, and install the package '
            'that it is part of.') from error


def assignment(name: str, value: Any) -> str:
    """Write ``name = value`` in Python, on one line.

    mmengine's own ``pretty_text`` would not do: what it writes of inf, of a
    keyword as a key or of a quote in a key is no Python, and it sorts the
    keys, although hooks of one priority run in their order.

    Raises:
        SubnetError: Something in ``value`` is neither a dict, list, tuple,
            string, number nor boolean, nor None.
    """
    return f'{name} = {ast.unparse(_parsed(value, name))}'


def comment(text: str) -> str:
    """Write a comment, wrapped at 79 columns."""
    return textwrap.fill(
        text,
        79,
        initial_indent='# ',
        subsequent_indent='# ',
        break_long_words=False)


def _assignments(values: Dict[str, Any]) -> List[str]:
    return [assignment(name, value) for name, value in values.items()]


def _formatted(lines: List[str]) -> str:
    """A file's text, laid out for people."""
    return FormatCode('\n'.join(lines) + '\n', style_config=STYLE)[0]


def _parsed(value: Any, where: str) -> ast.expr:
    """What the Python text of a value is parsed to."""
    if isinstance(value, dict):
        parts = [
            _parsed(part, f'{where}.{key}') for key, part in value.items()
        ]
        # ASCII: Python reads other names in their compatible form, º as o
        if all(
                isinstance(key, str) and key.isascii() and key.isidentifier()
                and not keyword.iskeyword(key) for key in value):
            return ast.Call(
                ast.Name('dict'), [], [*map(ast.keyword, value, parts)])
        return ast.Dict([_parsed(key, where) for key in value], parts)
    if isinstance(value, (list, tuple)):
        kind = ast.List if isinstance(value, list) else ast.Tuple
        return kind([
            _parsed(part, f'{where}[{number}]')
            for number, part in enumerate(value)
        ], ast.Load())
    # exact types: the repr of a subclass need not be Python text
    if value is None or type(value) in (bool, int, float, str):
        return ast.Constant(value)
    raise SubnetError(
        f'{where} is a {type(value).__name__}, which cannot be written into '
        'a config as text. Name classes by their registered names, and use '
        'plain values.')
