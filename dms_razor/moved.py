# Copyright (c) dms_razor contributors. All rights reserved.
"""Modules under their names of yesterday, with a DeprecationWarning.

:data:`MOVED` is the whole of it: the old name of a module and where it is
now. ``dms_razor/__init__.py`` puts the finder in place.
"""
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Optional

#: Module as it was called up to version 0.1.0 -> module of today. A name that
#: begins with ``tools`` lies outside the package, beside it or in ``.mim``.
MOVED: Dict[str, str] = {
    '_checkpoint_loading': 'compat.checkpoint',
    '_cpu_distributed': 'compat.cpu_distributed',
    '_flop_counter': 'compat.flop_counter',
    '_mmcls_alias': 'compat.mmcls_alias',
    '_mmcv_ext': 'compat.mmcv_ext',
    '_mutable_widths': 'adapters.exporting',
    '_window_batch': 'adapters.exporting',
    'core.bank_masks': 'core.bank',
    'core.bank_state': 'core.bank',
    'core.constraint': 'core.budget',
    'core.projection_search': 'core.projection',
    'core.reduce': 'core.bank',
    'core.schedule': 'core.budget',
    'core.tables': 'core.resource',
    'core.target': 'core.budget',
    'coverage': 'tools.coverage.check',
    'coverage_cases': 'tools.coverage.backbones',
    'coverage_detectors': 'tools.coverage.detectors',
    'coverage_table': 'tools.coverage.table',
    'datasets': 'openmmlab.digits',
    'datasets.digit_scenes': 'tools._digit_scenes',
    'datasets.digits': 'openmmlab.digits',
    'engine': 'openmmlab',
    'engine.from_config': 'openmmlab.from_config',
    'engine.hooks': 'openmmlab.hooks',
    'engine.hooks.dms_hook': 'openmmlab.hooks.search',
    'engine.hooks.export_subnet_hook': 'openmmlab.hooks.export',
    'engine.hooks.structure_log_hook': 'openmmlab.hooks.structure',
    'engine.hooks.subnet_checkpoint_hook': 'openmmlab.hooks.checkpoint',
    'engine.random_state': 'openmmlab.resume',
    'engine.resume': 'openmmlab.resume',
    'engine.retrain': 'openmmlab.retrain',
    'engine.subnet_model': 'openmmlab.subnet_model',
    'engine.supernet_checkpoint': 'openmmlab.checkpoints',
    'estimate': 'preflight',
    'masking.layer_norm': 'masking.norms',
    'models': 'openmmlab',
    'models.algorithms': 'openmmlab',
    'models.algorithms.build': 'openmmlab.algorithm',
    'models.algorithms.dms': 'openmmlab.algorithm',
    'models.algorithms.schedule': 'openmmlab.schedule',
    'models.example_input': 'openmmlab.example_input',
    'models.losses': 'openmmlab',
    'models.losses.resource_constraint_loss': 'openmmlab.loss',
    'models.mutators': 'openmmlab',
    'models.mutators.dms_mutator': 'openmmlab.mutator',
    'models.relative_attention': 'openmmlab.autoformer',
    'models.static_supernet': 'openmmlab.autoformer',
    'models.submodel': 'openmmlab.submodel',
    'models.supernet_recipes': 'openmmlab.recipes',
    'models.supernet_wiring': 'openmmlab.enlarge',
    'models.supernets': 'openmmlab.enlarge',
    'models.transformer_recipes': 'openmmlab.recipes',
    'models.units': 'openmmlab.units',
    'models.units.base_unit': 'openmmlab.units',
    'models.units.difftopk_channel_unit': 'openmmlab.units',
    'models.units.difftopk_depth_unit': 'openmmlab.units',
    'search_step': 'search',
    'search_view': 'search',
    'stale_gradient': 'search',
    'structure': 'subnet.structure',
    'subnet.attention': 'adapters.attention',
    'subnet.calling': 'network',
    'subnet.costs': 'subnet.checks',
    'subnet.counting': 'counting',
    'subnet.csp': 'adapters.csp',
    'subnet.errors': 'errors',
    'subnet.keep': 'space',
    'subnet.layers': 'subnet.report',
    'subnet.python_text': 'openmmlab.retrain',
    'subnet.recipe': 'openmmlab.retrain_recipe',
    'subnet.retrain_config': 'openmmlab.retrain',
    'subnet.shapes': 'network',
    'subnet.slim': 'adapters.registry',
    'subnet.tensor_slicing': 'subnet.slicing',
    'subnet.widths': 'subnet.slicing',
    'tracing.attention_units': 'tracing.units',
    'tracing.elements': 'tracing.units',
    'tracing.folding': 'tracing.sites',
    'tracing.repair': 'proof.repair',
    'tracing.residual': 'tracing.blocks',
    'tracing.rules.counted': 'tracing.rules.attention',
    'tracing.rules.lookup': 'tracing.rules.contraction',
    'tracing.rules.reshaping': 'tracing.rules.movement',
    'tracing.selfcheck': 'proof.check',
    'tracing.space': 'space',
    'tracing.trace': 'trace',
    'tracing.untouched': 'network',
    'visualization': 'subnet.picture',
    'visualization.structure_picture': 'subnet.picture',
}

#: Names that left a package: (package, name) -> module of today.
MOVED_NAMES: Dict[tuple, str] = {
    ('dms_razor.subnet', 'RetrainConfig'): 'dms_razor.openmmlab.retrain',
    ('dms_razor.subnet', 'standard_base'): 'dms_razor.openmmlab.retrain',
    ('dms_razor.tracing', 'Block'): 'dms_razor.space',
    ('dms_razor.tracing', 'FullWidth'): 'dms_razor.space',
    ('dms_razor.tracing', 'MaskSite'): 'dms_razor.space',
    ('dms_razor.tracing', 'SliceSite'): 'dms_razor.space',
    ('dms_razor.tracing', 'Space'): 'dms_razor.space',
    ('dms_razor.tracing', 'trace'): 'dms_razor.trace',
}


class AliasFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports modules under other names than their own.

    An entry in ``sys.modules`` alone would not do: a module below an alias
    would be run a second time under the other name.

    Args:
        real (Callable): Full name that is asked for -> name of the module
            that it is today, or None if it is no alias.
    """

    def __init__(self, real: Callable[[str], Optional[str]]) -> None:
        self.real = real

    def find_spec(self, fullname: str, path=None, target=None):
        """The spec of an alias, if there is such a module."""
        real = self.real(fullname)
        if real is None or importlib.util.find_spec(real) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec) -> Optional[types.ModuleType]:
        """An empty module; :meth:`exec_module` puts the real one there."""
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Make the real module what ``sys.modules`` has for this name."""
        name = module.__name__
        sys.modules[name] = importlib.import_module(str(self.real(name)))


def _place_today(name: str) -> Optional[str]:
    package, _, old = name.partition('.')
    if package != 'dms_razor' or old not in MOVED:
        return None
    new = MOVED[old]
    if new.partition('.')[0] != 'tools':
        new = f'dms_razor.{new}'
    else:
        own = Path(__file__).resolve().parent
        root = next(
            (r for r in (own.parent, own / '.mim') if (r / 'tools').is_dir()),
            own)
        if str(root) not in sys.path:
            sys.path.append(str(root))
    return new


class _MovedFinder(AliasFinder):

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__name__
        warnings.warn(f'{name} is now {self.real(name)}; change the import',
                      DeprecationWarning, 4)
        super().exec_module(module)


def moved_names(package: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that names have left."""

    def getattr_of_package(name: str) -> Any:
        home = MOVED_NAMES.get((package, name))
        if home is None:
            raise AttributeError(
                f'module {package!r} has no attribute {name!r}')
        warnings.warn(
            f'{package}.{name} is now {home}.{name}; change the '
            'import', DeprecationWarning, 2)
        return getattr(importlib.import_module(home), name)

    return getattr_of_package


def install() -> None:
    """Let old names be found, once."""
    if not any(isinstance(f, _MovedFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _MovedFinder(_place_today))
