# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor 1.0.0 and its friends on current PyTorch.

MMRazor and MMYOLO have been frozen since 2023 and, as they are, do not import
on torch 2. :func:`apply` puts that right. Nothing else in this project knows
about versions. Each shim is a function of its own that says what it mends,
does nothing where there is nothing to mend, and takes nothing away.

:func:`apply` must run before ``mmrazor.models``, ``mmdet.models``,
``mmpretrain.models`` or ``mmyolo`` is imported; ``import dms_razor.openmmlab``
sees to that.
"""
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from importlib.metadata import version
from typing import Callable, Dict, Iterable, List, Optional
from unittest.mock import patch

from ..moved import AliasFinder
from . import cpu_distributed as cpu
from .checkpoint import load_checkpoint, load_url
from .mmcv_ext import ExtensionStandIn

_applied: set = set()
_libraries: List[object] = []  # torch.library registrations live as long


def _installed(package: str) -> bool:
    return package in sys.modules or bool(importlib.util.find_spec(package))


def pkg_resources_warning() -> None:
    """setuptools 80 announces the end of pkg_resources at every import of it.

    MMEngine and mim import it, and a run that builds several runners would
    print the announcement dozens of times. It is about them and not about
    the user's code; the versions here are pinned below setuptools 82.
    """
    import warnings
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated',
                            UserWarning)


def quantization_names() -> None:
    """torch 2.0 dropped private helpers of its quantization tables.

    MMRazor builds such tables while ``mmrazor.models`` is imported. The
    names are given back so that the import works; quantization itself is
    not made to work by that.
    """
    if not _installed('mmrazor'):
        return
    # MMRazor reads this submodule as an attribute and never imports it.
    import torch.ao.quantization.backend_config.utils  # noqa: F401
    import torch.ao.quantization.fuser_method_mappings as mappings
    from torch.ao.quantization.backend_config import BackendPatternConfig

    helpers = dict(
        reverse2=lambda fuse: lambda is_qat, x, y: fuse(is_qat, y, x),
        reverse3=lambda fuse: lambda is_qat, x, pair: fuse(
            is_qat, pair[1], pair[0], x),
        reverse_sequential_wrapper2=lambda sequential: lambda is_qat, x, y:
        sequential(y, x))

    def setter(attribute: str) -> Callable:

        def set_attribute(self, value):
            setattr(self, attribute, value)
            return self

        return set_attribute

    setters = {
        f'_set{attribute}': setter(attribute)
        for attribute in ('_overwrite_output_observer',
                          '_overwrite_output_fake_quantize',
                          '_input_output_observed')
    }
    for owner, names in ((mappings, helpers), (BackendPatternConfig, setters)):
        for name in names.keys() - vars(owner).keys():
            setattr(owner, name, names[name])


def torchvision_schemas() -> None:
    """torchvision without its C++ library cannot be imported.

    That is so for PyPI's torchvision beside a CPU-only torch: its Python
    files register a fake kernel for ``torchvision::nms``, whose schema only
    the C++ library declares. Declare the schemas, then import again.
    """
    if not _installed('torchvision'):
        return
    try:
        importlib.import_module('torchvision')
        return
    except RuntimeError as error:
        if 'torchvision::' not in str(error):
            raise
    import torch
    library = torch.library.Library('torchvision', 'DEF')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, '
                       'float iou_threshold) -> Tensor')
    _libraries.append(library)
    for name in list(sys.modules):
        if name.split('.')[0] == 'torchvision':
            del sys.modules[name]
    importlib.import_module('torchvision')


def mmcv_operators() -> None:
    """mmcv-lite has no ``mmcv._ext``, which MMDetection and MMYOLO import.

    See :mod:`dms_razor.compat.mmcv_ext`. The full mmcv is left alone.
    """
    spec = importlib.util.find_spec('mmcv')
    if 'mmcv._ext' not in sys.modules and spec and not PathFinder.find_spec(
            'mmcv._ext', spec.submodule_search_locations):
        sys.modules['mmcv._ext'] = ExtensionStandIn()


def mmyolo_version_check() -> None:
    """MMYOLO 0.6.0 refuses mmcv 2.1, the one that compiles on torch 2.13.

    The check is in ``mmyolo/__init__.py`` and nowhere else: import that
    under the last version number it takes.
    """
    if 'mmyolo' not in sys.modules and _installed('mmyolo') and _installed(
            'mmcv'):
        import mmcv
        if mmcv.__version__.startswith('2.1.'):
            with patch.object(mmcv, '__version__', '2.0.1'):
                importlib.import_module('mmyolo')


def mmcls_alias() -> None:
    """MMRazor's OFA, Autoformer and other supernets import ``mmcls``.

    MMPretrain is MMCls under its new name. Without the alias MMRazor's
    supernets subclass a placeholder and fail when they are built; configs of
    them also need ``default_scope = 'mmrazor'``.
    """
    if _installed('mmcls') or not _installed('mmpretrain'):
        return

    def successor(name: str) -> Optional[str]:
        package, dot, rest = name.partition('.')
        return f'mmpretrain{dot}{rest}' if package == 'mmcls' else None

    # first: the ordinary finder would take mmcls.x from mmpretrain's folder
    sys.meta_path.insert(0, AliasFinder(successor))


def multimodal_models() -> None:
    """MMPretrain 1.2 writes BLIP, OFA and others for transformers 4.

    Beside transformers 5, which lacks names that they need, the import of
    ``mmpretrain.models`` ends in a TypeError. They are left out then, as
    where transformers is not installed: who builds one is told so.
    """
    if not _installed('mmpretrain') or not _installed('transformers'):
        return
    if int(version('transformers').partition('.')[0]) > 4:
        from mmpretrain.utils import dependency
        dependency.WITH_MULTIMODAL = False


def xtcocotools_alias() -> None:
    """MMPose reads annotations by ``xtcocotools``, a fork of pycocotools.

    Its wheel is built for NumPy 2 and does not import beside NumPy 1, which
    the other packages need. Where it is not installed the original takes its
    place; that lacks what scores whole bodies and crowds.
    """
    if _installed('xtcocotools') or not _installed('pycocotools'):
        return

    def fork(name: str) -> Optional[str]:
        package, dot, rest = name.partition('.')
        return f'pycocotools{dot}{rest}' if package == 'xtcocotools' else None

    sys.meta_path.insert(0, AliasFinder(fork))


def checkpoint_loading() -> None:
    """torch 2.6 made ``weights_only=True`` the default of ``torch.load``.

    MMEngine's checkpoints hold other things than weights, so ``resume`` and
    ``load_from`` fail; before 2.6, and for downloads up to now, they run
    code from the file. Both are replaced by loading through an allow-list,
    on every version of torch: see :mod:`dms_razor.compat.checkpoint`.
    """
    if _installed('mmengine'):
        from mmengine.runner import checkpoint
        checkpoint.CheckpointLoader.register_scheme(
            prefixes='', loader=load_checkpoint, force=True)
        checkpoint.load_url = load_url


def cpu_distributed() -> None:
    """Distributed runs without a GPU: gloo, and SyncBatchNorm on the CPU.

    See :mod:`dms_razor.compat.cpu_distributed`; the replacements call the
    original where there is an accelerator.
    """
    from torch.nn import SyncBatchNorm
    from torch.nn.parallel import DistributedDataParallel as Parallel

    SyncBatchNorm.forward = cpu.sync_batch_norm(SyncBatchNorm.forward)
    Parallel._passing_sync_batchnorm_handle = cpu.sync_batch_norm_check(
        Parallel._passing_sync_batchnorm_handle)
    if _installed('mmengine'):
        import mmengine.dist.utils as utils
        for name in ('_init_dist_pytorch', '_init_dist_slurm'):
            setattr(utils, name, cpu.init_on_cpu(getattr(utils, name)))


def cpu_amp() -> None:
    """MMEngine's AmpOptimWrapper refuses to run without an accelerator.

    Its autocast knows bfloat16 on the CPU, which needs no loss scaling; only
    a check of ``is_cuda_available`` in the constructor is in the way.
    """
    if not _installed('mmengine'):
        return
    from mmengine.device import get_device
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    if get_device() == 'cpu':
        amp_optimizer_wrapper.is_cuda_available = lambda: True


SHIMS: Dict[str, Callable[[], None]] = {
    shim.__name__: shim
    for shim in (pkg_resources_warning, quantization_names,
                 torchvision_schemas, mmcv_operators, mmyolo_version_check,
                 mmcls_alias, multimodal_models, xtcocotools_alias,
                 checkpoint_loading, cpu_distributed, cpu_amp)
}
"""All shims by name, in the order in which they are applied."""


def apply(skip: Iterable[str] = ()) -> None:
    """Apply every shim once; later calls apply only what was skipped.

    Args:
        skip (Iterable[str]): Names from :data:`SHIMS` to leave out.

    Raises:
        ValueError: ``skip`` names no shim.
    """
    skip = set(skip)
    unknown = sorted(skip - set(SHIMS))
    if unknown:
        raise ValueError(f'No compatibility shim is called {unknown[0]!r}. '
                         f'The shims are: {", ".join(SHIMS)}.')
    for name, shim in SHIMS.items():
        if name not in skip and name not in _applied:
            shim()
            _applied.add(name)
