# Copyright (c) dms_razor contributors. All rights reserved.
"""``import dms_razor`` is light, and half of it needs torch alone."""
import pytest

import dms_razor

PLAIN = ('core', 'tracing', 'masking', 'subnet', 'search', 'baselines')
FORBID = '''
import importlib
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {forbidden!r}:
            raise ModuleNotFoundError('forbidden: ' + name)

sys.meta_path.insert(0, Forbid())
importlib.import_module(sys.argv[1])
'''
OPENMMLAB = ('mmengine', 'mmcv', 'mmrazor', 'mmpretrain', 'mmdet', 'mmyolo',
             'cv2', 'torchvision', 'matplotlib', 'sklearn', 'scipy')


def test_import_needs_nothing(run_python):
    code = FORBID.format(forbidden=OPENMMLAB + ('torch', 'numpy'))
    result = run_python(code, 'dms_razor')
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('name', PLAIN)
def test_plain_half_needs_torch_alone(name, run_python):
    code = FORBID.format(forbidden=OPENMMLAB)
    result = run_python(code, f'dms_razor.{name}')
    assert result.returncode == 0, result.stderr


def test_search_is_found_when_asked_for():
    from dms_razor.search import Search
    assert dms_razor.Search is Search
    assert 'Search' in dir(dms_razor)
    with pytest.raises(AttributeError, match="no attribute 'Searches'"):
        dms_razor.Searches
