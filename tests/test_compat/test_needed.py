# Copyright (c) dms_razor contributors. All rights reserved.
"""What an environment without OpenMMLab says, in a process of its own."""
import pytest

from dms_razor.compat import refuse_missing

HIDE = '''
import sys
hidden = sys.argv[1:]

class Hide:
    """As if these packages were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in hidden:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: (
    None if name in hidden else found(name, *rest))
sys.meta_path.insert(0, Hide())
import dms_razor
dms_razor.Search
import dms_razor.openmmlab
'''


def test_nothing_is_said_where_nothing_lacks():
    refuse_missing()


@pytest.mark.parametrize('hidden, named', [
    (['torchvision'], 'needs torchvision, which'),
    (['mmrazor', 'mmcv', 'pkg_resources'
      ], 'needs mmcv, mmrazor, pkg_resources, which'),
])
def test_what_lacks_is_named_at_once(hidden, named, run_python):
    result = run_python(HIDE, *hidden)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith('dms_razor.errors.MissingPackageError: ')
    assert named in last and 'pip install ' in last
    assert ("'mmcv-lite<2.1'" in last) == ('mmcv' in hidden)
    assert ("'setuptools<82'" in last) == ('pkg_resources' in hidden)
