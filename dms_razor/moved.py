# Copyright (c) dms_razor contributors. All rights reserved.
"""Modules and names of yesterday, found where they are today.

Every import that the documentation of version 0.1.0 shows still works and
gives the same object as the new path, with a DeprecationWarning.
``dms_razor/__init__.py`` puts the finder in place.
"""
import pkgutil
import sys
import warnings
from contextlib import suppress
from importlib import abc, import_module, machinery, util
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Optional, Tuple

#: Modules of today -> modules of 0.1.0 whose names are found there. A module
#: that begins with ``tools`` lies outside the package, beside it or in
#: ``.mim``. One whose names are in several places stands behind each; one that
#: is still there calls :func:`moved_names`.
MODULES: Dict[str, str] = {
    'adapters.attention': 'subnet.attention',
    'adapters.csp': 'subnet.csp',
    'adapters.registry': 'subnet.slim',
    'compat.shims': 'compat',
    'core.bank': 'core.bank_masks',
    'core.gradient': 'core.reduce stale_gradient',
    'core.budget': 'core.constraint core.schedule core.target',
    'core.projection': 'core.projection_search',
    'core.resource': 'core.tables',
    'core.state': 'core.bank_state',
    'counting': 'subnet.counting',
    'errors': 'subnet.errors',
    'masking.norms': 'masking.layer_norm',
    'masking.written_norms': 'masking.layer_norm',
    'network': 'subnet.calling subnet.shapes tracing.untouched',
    'openmmlab': 'datasets engine models models.algorithms models.losses '
    'models.mutators models.units',
    'openmmlab.algorithm': 'models.algorithms.build models.algorithms.dms',
    'openmmlab.autoformer': 'models.relative_attention models.static_supernet',
    'openmmlab.checkpoints': 'engine.supernet_checkpoint',
    'openmmlab.digits': 'datasets.digits',
    'openmmlab.enlarge': 'models.supernet_wiring models.supernets',
    'openmmlab.example_input': 'models.example_input',
    'openmmlab.from_config': 'engine.from_config',
    'openmmlab.hooks': 'engine.hooks',
    'openmmlab.hooks.checkpoint': 'engine.hooks.subnet_checkpoint_hook',
    'openmmlab.hooks.export': 'engine.hooks.export_subnet_hook',
    'openmmlab.hooks.search': 'engine.hooks.dms_hook',
    'openmmlab.hooks.structure': 'engine.hooks.structure_log_hook',
    'openmmlab.loss': 'models.losses.resource_constraint_loss',
    'openmmlab.mutator': 'models.mutators.dms_mutator',
    'openmmlab.recipes': 'models.supernet_recipes models.transformer_recipes',
    'openmmlab.resume': 'engine.random_state engine.resume',
    'openmmlab.retrain': 'engine.retrain subnet subnet.python_text '
    'subnet.retrain_config',
    'openmmlab.retrain_recipe': 'subnet.recipe',
    'openmmlab.schedule': 'models.algorithms.schedule',
    'openmmlab.submodel': 'engine.subnet_model models.submodel',
    'openmmlab.units': 'models.units.base_unit '
    'models.units.difftopk_channel_unit models.units.difftopk_depth_unit',
    'preflight': 'estimate',
    'proof.check': 'tracing.selfcheck',
    'proof.repair': 'tracing.repair',
    'search': 'search_step search_view',
    'space': 'subnet.keep tracing tracing.residual '
    'tracing.space',
    'subnet.checks': 'subnet.costs',
    'subnet.manifest': 'subnet.describe',
    'subnet.picture': 'visualization visualization.structure_picture',
    'subnet.report': 'subnet.layers',
    'subnet.slicing': 'subnet.tensor_slicing subnet.widths',
    'subnet.structure': 'structure',
    'tools._digit_scenes': 'datasets datasets.digit_scenes',
    'tools.zoo.backbones': 'coverage_cases',
    'tools.zoo.check': 'coverage',
    'tools.zoo.detectors': 'coverage_detectors',
    'tools.zoo.table': 'coverage_table',
    'trace': 'tracing.trace',
    'tracing.blocks': 'tracing.residual',
    'tracing.rules.attention': 'tracing.rules.counted',
    'tracing.rules.contraction': 'tracing.rules.lookup',
    'tracing.rules.movement': 'tracing.rules.reshaping',
    'tracing.sites': 'tracing.folding',
    'tracing.units': 'tracing.attention_units tracing.elements',
}

#: Names that are called otherwise today, or as a module was: old path -> new
#: module and name in it.
NAMES: Dict[str, str] = {
    'core.bank_masks.BankMasks': 'core.bank:Bank',
    'core.bank_state.check_kept': 'core.layout:Layout.check_counts',
    'core.bank_state.export_state': 'core.bank:Bank.state_dict',
    'core.bank_state.restore_state': 'core.bank:Bank.load_state_dict',
    'core.importance.check_metric': 'core.importance:IMPORTANCES.find',
    'search.make_bank': 'masking.attach:make_bank',
    'search.weighted_constraint': 'core.budget:constraint_loss',
    'search_step.SearchStep': 'search:Search',
    'search_view.SearchView': 'search:Search',
    'subnet.calling.evaluating': 'network:untouched',
    'subnet.calling.tensors_in': 'network:tensors_of',
    'subnet.weights.check_weights': 'subnet.weights:matching_weights',
    'tracing.attention_units.AttentionFinder': 'tracing.units:UnitFinder',
    'tracing.attention_units.AttentionGroup': 'tracing.facts:Heads',
    'tracing.record.ALIASES': 'tracing.rules.table:ALIASES',
    'tracing.record.op_name': 'tracing.rules.table:op_name',
    'tracing.record.tensors_of': 'network:tensors_of',
    'tracing.residual.NotRemovable': 'space:FullWidth',
    'tracing.rules.contraction.convolution': 'tracing.rules.contraction:layer',
    'tracing.rules.contraction.linear': 'tracing.rules.contraction:layer',
    'tracing.rules.contraction.transposed': 'tracing.rules.contraction:layer',
    'tracing.selfcheck.MOST_DOUBLE': 'proof.probe:MOST_DOUBLE',
    'tracing.selfcheck.trial_keep': 'proof.trials:trial',
    'tracing.trace': 'trace:trace',
    'tracing.trace.run_model': 'network:run_model',
}


class AliasFinder(abc.MetaPathFinder, abc.Loader):
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
        if real is not None and util.find_spec(real) is not None:
            return machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Make the real module what ``sys.modules`` has for this name."""
        name = module.__name__
        sys.modules[name] = import_module(str(self.real(name)))


class MovedModule(ModuleType):
    """A module of yesterday: it looks its names up where they are today.

    Args:
        name (str): What it was called.
    """

    def __getattr__(self, name: str) -> Any:
        return _today(self.__name__, name)[1]


class _Package(ModuleType):
    """A package that does not hold its modules of yesterday.

    Importing ``tracing.trace`` would else put that module over the function
    of this name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(value, MovedModule):
            super().__setattr__(name, value)


class _MovedFinder(abc.MetaPathFinder, abc.Loader):

    def find_spec(self, fullname: str, path=None, target=None):
        package, _, old = fullname.partition('.')
        if package == 'dms_razor' and _homes(old):
            return machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec) -> ModuleType:
        return MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        _warn(module.__name__, *_homes(module.__name__.partition('.')[2]))


def moved_names(package: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that names have left."""
    sys.modules[package].__class__ = _Package

    def getattr_of_package(name: str) -> Any:
        old = sys.modules.get(f'{package}.{name}')
        try:
            place, value = _today(package, name)
        except AttributeError:
            if isinstance(old, MovedModule):
                return old
            raise
        _warn(f'{package}.{name}', place)
        return value

    return getattr_of_package


def install() -> None:
    """Let old names be found, once."""
    if not any(isinstance(f, _MovedFinder) for f in sys.meta_path):
        sys.meta_path.append(_MovedFinder())


def _homes(old: str) -> list:
    return [new for new, names in MODULES.items() if old in names.split()]


def _full(name: str) -> str:
    return name if name.startswith('tools.') else f'dms_razor.{name}'


def _warn(old: str, *places: str) -> None:
    new = ' or '.join(map(_full, places)).replace(':', '.')
    warnings.warn(f'{old} is now {new}; change the import', DeprecationWarning,
                  3)


def _today(module: str, name: str) -> Tuple[str, Any]:
    """Where a name of yesterday is today, and what it names."""
    old = module.partition('.')[2]
    own = name.startswith('__') or _homes(f'{old}.{name}')
    homes = [] if own else _homes(old)
    for place in filter(None,
                        (NAMES.get(f'{old}.{name}'), *(f'{home}:{name}'
                                                       for home in homes))):
        with suppress(AttributeError):
            return place, _value(place)
    places = f' and moved to {" or ".join(map(_full, homes))}' if homes else ''
    raise AttributeError(f'module {module!r} has no attribute {name!r}'
                         f'{places}; CHANGELOG.md names what is gone')


def _value(place: str) -> Any:
    """What a place such as ``'trace:trace'`` holds."""
    if place.startswith('tools.'):
        own = Path(__file__).resolve().parent
        sys.path += [
            str(root) for root in (own.parent, own / '.mim')
            if (root / 'tools').is_dir() and str(root) not in sys.path
        ]
    return pkgutil.resolve_name(_full(place))
