# Copyright (c) dms_razor contributors. All rights reserved.
"""``mmcls`` is MMPretrain itself, not a second copy of it."""
import importlib
import importlib.util

import mmpretrain
import pytest


@pytest.mark.parametrize(
    'name', ['', '.models', '.models.utils', '.models.backbones.resnet'])
def test_modules_are_the_same_objects(name):
    real = importlib.import_module('mmpretrain' + name)
    spec = real.__spec__
    assert importlib.import_module('mmcls' + name) is real
    assert real.__name__ == 'mmpretrain' + name
    assert real.__spec__ is spec and spec.name == real.__name__


def test_what_mmpretrain_lacks_is_missing():
    with pytest.raises(ModuleNotFoundError, match='mmcls.nothing'):
        importlib.import_module('mmcls.nothing')
    with pytest.raises(ImportError, match='ClsDataSample'):
        from mmcls.structures import ClsDataSample  # noqa: F401


def test_other_names_are_not_touched():
    assert importlib.util.find_spec('mmclsx') is None
    assert importlib.util.find_spec('mmpretrain').name == 'mmpretrain'
    assert mmpretrain.__name__ == 'mmpretrain'
