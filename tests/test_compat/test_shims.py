# Copyright (c) dms_razor contributors. All rights reserved.
"""Each shim: what it mends works with it and does not work without it."""
import re
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from dms_razor import compat

# argument 1: the shim to leave out, or nothing
APPLY = '''
import sys
import torch
from dms_razor import compat
compat.apply(skip=filter(None, sys.argv[1:2]))
'''
LOSE_OPERATORS = '''
import torch
def load_library(path):
    raise OSError('does not load')
torch.ops.load_library = load_library
'''
USE_MMCV_2_1 = '''
import mmcv
mmcv.__version__ = '2.1.0'
'''
OPEN_PROCESS_GROUP = '''
from mmengine.dist import get_world_size, init_dist
init_dist('pytorch')
assert get_world_size() == 1
assert torch.distributed.get_backend() == 'gloo'
'''
BUILD_AMP = '''
from mmengine.optim import AmpOptimWrapper
model = torch.nn.Linear(4, 2)
wrapper = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), .1))
with wrapper.optim_context(model):
    out = model(torch.ones(1, 4))
assert out.dtype == torch.bfloat16, out.dtype
before = model.weight.detach().clone()
wrapper.update_params(out.float().sum())
assert torch.allclose(before - model.weight, torch.tensor(.1), atol=1e-3)
'''
BUILD_SYNC_BN = '''
torch.distributed.init_process_group('gloo')
torch.nn.SyncBatchNorm(2)(torch.ones(3, 2, 1))
'''
BUILD_PARALLEL = '''
torch.distributed.init_process_group('gloo')
torch.nn.parallel.DistributedDataParallel(torch.nn.SyncBatchNorm(2))
'''
RENDEZVOUS = dict(
    RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1')

# as setuptools 80 warns; other versions say nothing
WARN = '''
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.warn('pkg_resources is deprecated as an API.', UserWarning)
assert not caught, 'announced'
'''

# A package of that name and version, without what mmpretrain wants of it.
TRANSFORMERS_5 = '''
import pathlib, sys, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
sys.path.insert(0, str(folder))
for package, number in (('transformers', '5.1.0'), ('pycocoevalcap', '1.2')):
    (folder / package).mkdir()
    (folder / package / '__init__.py').touch()
    about = folder / f'{package}-{number}.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text(
        f'Metadata-Version: 2.1\\nName: {package}\\nVersion: {number}\\n')
'''

CASES = {
    'pkg_resources_warning': (APPLY + WARN, 'announced'),
    'quantization_names': (APPLY + 'import mmrazor.models', 'torch>=1.13'),
    'torchvision_schemas':
    (LOSE_OPERATORS + APPLY + 'import torchvision', 'torchvision::nms'),
    'mmcv_operators': (APPLY + 'import mmdet.models', 'mmcv._ext'),
    'mmyolo_version_check':
    (USE_MMCV_2_1 + APPLY + 'import mmyolo\n'
     "assert mmcv.__version__ == '2.1.0'", 'incompatible'),
    'mmcls_alias': (APPLY + 'from mmcls.models import ImageClassifier\n'
                    'import mmpretrain.models as models\n'
                    'assert ImageClassifier is models.ImageClassifier',
                    "No module named 'mmcls'"),
    'multimodal_models': (TRANSFORMERS_5 + APPLY + 'import mmpretrain.models',
                          'NoneType takes no arguments|transformers'),
    'xtcocotools_alias':
    (APPLY + 'from xtcocotools.coco import COCO\n'
     'import pycocotools.coco as real\n'
     'assert COCO is real.COCO', "No module named 'xtcocotools'"),
    'cpu_distributed': (APPLY + OPEN_PROCESS_GROUP, 'CUDA|cuda|NVIDIA'),
    'cpu_amp': (APPLY + BUILD_AMP, 'only available'),
}


@pytest.fixture
def port(free_port):
    return str(free_port)


@pytest.mark.parametrize('name', CASES)
def test_shim_is_needed_and_enough(name, run_python, port):
    code, complaint = CASES[name]
    environment = dict(RENDEZVOUS, MASTER_PORT=port)
    without = run_python(code, name, **environment)
    if name == 'torchvision_schemas' and torch.__version__ < '2.5':
        return  # the torchvision of that time imports without its library
    assert without.returncode != 0
    assert re.search(complaint, without.stderr), without.stderr
    with_it = run_python(code, **environment)
    assert with_it.returncode == 0, with_it.stderr


def test_sync_batch_norm_needs_the_shim_on_the_cpu(run_python, port):
    environment = dict(RENDEZVOUS, MASTER_PORT=port)
    code = APPLY + BUILD_SYNC_BN
    without = run_python(code, 'cpu_distributed', **environment)
    assert 'SyncBatchNorm expected input tensor' in without.stderr
    assert run_python(code, **environment).returncode == 0


def test_parallel_sync_batch_norm_needs_the_shim(run_python, port):
    """DistributedDataParallel has a check of its own."""
    environment = dict(RENDEZVOUS, MASTER_PORT=port)
    code = APPLY + BUILD_PARALLEL
    without = run_python(code, 'cpu_distributed', **environment)
    assert 'only work with GPU modules' in without.stderr
    with_it = run_python(code, **environment)
    assert with_it.returncode == 0, with_it.stderr


def test_checkpoint_loading_is_needed(run_python, tmp_path):
    """Without it MMEngine either fails on its own file or runs foreign code.

    Which of the two depends on the version of torch.
    """
    from mmengine.logging import HistoryBuffer
    torch.save({'history': HistoryBuffer([1.], [1])}, tmp_path / 'own.pth')
    torch.save(Foreign(tmp_path / 'ran'), tmp_path / 'foreign.pth')
    code = APPLY + '''
from mmengine.runner.checkpoint import CheckpointLoader
try:
    CheckpointLoader.load_checkpoint('own.pth')
    print('loads own')
    CheckpointLoader.load_checkpoint('foreign.pth')
except Exception as error:
    print('stops at', type(error).__name__)
'''
    with_it = run_python(code)
    assert 'loads own' in with_it.stdout
    assert 'stops at UnsafeCheckpointError' in with_it.stdout
    assert not (tmp_path / 'ran').exists()
    without = run_python(code, 'checkpoint_loading')
    assert 'loads own' not in without.stdout or (tmp_path / 'ran').exists()


class Foreign:
    """Pickles as a call of ``pathlib.Path.touch``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path, )


def test_every_shim_has_a_case():
    assert set(compat.SHIMS) == {*CASES, 'checkpoint_loading'}
    for shim in compat.SHIMS.values():
        assert len(shim.__doc__.splitlines()) > 2, 'says its reason'


def test_unknown_shim_is_refused():
    with pytest.raises(ValueError, match="'mmcv_ops'.*mmcv_operators"):
        compat.apply(skip=['mmcv_ops'])


def test_second_apply_changes_nothing():
    from mmengine.dist import utils
    before = utils._init_dist_pytorch, torch.nn.SyncBatchNorm.forward
    finders = list(sys.meta_path)
    compat.apply()
    assert (utils._init_dist_pytorch, torch.nn.SyncBatchNorm.forward) == before
    assert sys.meta_path == finders


def test_only_missing_quantization_names_are_added(run_python):
    """A function that torch has stays the one it has."""
    code = APPLY.replace(
        'from dms_razor', 'import torch.ao.quantization.'
        'fuser_method_mappings as m\nm.reverse2 = mine = object()\n'
        'from dms_razor') + 'assert m.reverse2 is mine'
    assert run_python(code).returncode == 0


def test_reversed_fusers_swap_their_arguments():
    from torch.ao.quantization import fuser_method_mappings as mappings

    def fuse(*arguments):
        return arguments

    assert mappings.reverse2(fuse)(True, 'x', 'y') == (True, 'y', 'x')
    assert mappings.reverse3(fuse)(True, 'x',
                                   ('y', 'z')) == (True, 'z', 'y', 'x')
    assert mappings.reverse_sequential_wrapper2(fuse)(True, 'x',
                                                      'y') == ('y', 'x')


def build_supernet(cfg):
    from mmrazor.registry import MODELS
    with DefaultScope.overwrite_default_scope('mmrazor'):
        model = MODELS.build(cfg)
    model.eval()  # returns None in mmpretrain
    return model


def test_once_for_all_supernet_builds_and_runs():
    """It subclasses a placeholder where mmcls is missing."""
    import mmrazor
    cfg = Config.fromfile(f'{mmrazor.__path__[0]}/.mim/configs/_base_/'
                          'nas_backbones/ofa_mobilenetv3_supernet.py')
    model = build_supernet(cfg.nas_backbone)
    feature, = model(torch.zeros(1, 3, 64, 64))
    assert feature.shape == (1, 1280, 1, 1)


def test_autoformer_supernet_builds_and_runs():
    space = dict(
        mlp_ratios=[3., 4.],
        num_heads=[1, 2],
        depth=[1, 2],
        embed_dims=[64, 128])
    model = build_supernet(dict(type='AutoformerBackbone', arch_setting=space))
    feature, = model(torch.zeros(1, 3, 224, 224))
    assert feature.shape == (1, 128)
