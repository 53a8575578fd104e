# Copyright (c) dms_razor contributors. All rights reserved.
"""Every import that the docs of 0.1.0 show still works, with a warning."""
import importlib
import inspect
import operator
import re
import sys
import warnings
from pathlib import Path

import pytest

from dms_razor import moved

REPO = Path(__file__).resolve().parents[1]
#: Module of 0.1.0 -> its documented names, those of a package's __all__ too.
DOCUMENTED = {
    module: names.split()
    for module, names in (
        line.split(':')
        for line in (Path(__file__).parent /
                     'documented_0_1_0.txt').read_text().splitlines()
        if not line.startswith('#'))
}
#: What others do instead; each is told in the changelog.
GONE = {
    'dms_razor.subnet.describe.closed_form',
    'dms_razor.subnet.describe.hard_counts',
    'dms_razor.subnet.keep.check_keep',
    'dms_razor.subnet.keep.kept_counts',
    'dms_razor.subnet.keep.unit_rows',
    'dms_razor.coverage_table.row_of_failure',
    'dms_razor.coverage_table.table_line',
    'dms_razor.core.importance.update',
    'dms_razor.tracing.folding.HOMOGENEOUS',
    'dms_razor.tracing.residual.HOMOGENEOUS',
    'dms_razor.tracing.residual.IDEMPOTENT',
    'dms_razor.tracing.residual.KEEPS_RANGE',
    'dms_razor.tracing.recorder.CONSTANTS',
    'dms_razor.tracing.recorder.READ_OUT',
    'dms_razor.tracing.rules.attention.added_product',
    'dms_razor.tracing.rules.counted.FUSED',
    'dms_razor.tracing.rules.counted.counted',
    'dms_razor.subnet.costs.check_supernet',
    'dms_razor.subnet.counting.PRODUCTS',
    'dms_razor.tracing.selfcheck.TOLERANCE',
    'dms_razor.tracing.selfcheck.TRIALS',
}
STILL_THERE = {
    name
    for name in DOCUMENTED if not moved._homes(name.partition('.')[2]) or (
        REPO / (name.replace('.', '/') + '.py')).exists() or (
            REPO / name.replace('.', '/') / '__init__.py').exists()
}


def forget(name):
    """As if a module of 0.1.0 had not been imported yet."""
    for known in list(sys.modules):
        if known == name or known.startswith(f'{name}.'):
            if isinstance(sys.modules[known], moved.MovedModule):
                del sys.modules[known]


@pytest.mark.parametrize('module', DOCUMENTED)
def test_old_path_gives_the_object_of_the_new_one(module):
    forget(module)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        old = importlib.import_module(module)
    told = [
        str(item.message) for item in told if 'is now' in str(item.message)
    ]
    assert bool(told) == (module not in STILL_THERE)
    assert all(text.startswith(module.rpartition('.')[0]) for text in told)
    for name in DOCUMENTED[module]:
        path = f'{module}.{name}'
        if path in GONE:
            assert not hasattr(old, name), f'{path} is not gone'
            continue
        found = getattr(old, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            home = importlib.import_module(found.__module__)
            assert not isinstance(home, moved.MovedModule)
            same = operator.attrgetter(found.__qualname__)(home)
            assert same is found, path


def test_what_is_gone_is_told():
    told = (REPO / 'CHANGELOG.md').read_text()
    for path in GONE:
        assert re.search(rf'\b{path.rpartition(".")[2]}\b', told), path


def test_table_names_no_module_in_vain():
    """Each old module was documented, each new one is there."""
    for new, old in moved.MODULES.items():
        assert importlib.util.find_spec(moved._full(new)), new
        for name in old.split():
            assert f'dms_razor.{name}' in DOCUMENTED, name
    for path in moved.NAMES:
        module, _, name = f'dms_razor.{path}'.rpartition('.')
        assert name in DOCUMENTED[module]


@pytest.mark.parametrize('first', [
    'import dms_razor.tracing.trace', 'import dms_razor.tracing',
    'from dms_razor.tracing.trace import record', 'import dms_razor.trace',
    'from dms_razor.tracing import untouched'
])
def test_module_does_not_hide_the_function_of_its_name(first, run_python):
    """In any order: a module is put into its package when it is imported."""
    result = run_python(
        f'{first}\n'
        'from dms_razor.tracing import trace\n'
        'import dms_razor.tracing.trace, dms_razor.tracing.untouched\n'
        'from dms_razor.trace import trace as new\n'
        'from dms_razor.network import untouched\n'
        'assert trace is new is dms_razor.tracing.trace\n'
        'assert dms_razor.tracing.untouched.untouched is untouched')
    assert result.returncode == 0, result.stderr


def test_warning_names_the_line_that_is_to_change(tmp_path, run_python):
    (tmp_path / 'mine.py').write_text('\n'
                                      'import dms_razor.tracing.space\n'
                                      'from dms_razor.tracing import Space\n')
    result = run_python('import mine', PYTHONWARNINGS='always')
    text = 'DeprecationWarning: dms_razor.tracing.space is now dms_razor.space'
    assert f'mine.py:2: {text}; change the import' in result.stderr
    text = 'DeprecationWarning: dms_razor.tracing.Space is now dms_razor.space'
    assert f'mine.py:3: {text}.Space; change the import' in result.stderr


def test_what_never_was_is_missing():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('dms_razor.tracing.never')
    for module in ('dms_razor.tracing', 'dms_razor.tracing.space'):
        with pytest.raises(AttributeError, match='moved to dms_razor.space'):
            importlib.import_module(module).Never
