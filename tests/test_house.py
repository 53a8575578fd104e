# Copyright (c) dms_razor contributors. All rights reserved.
"""The rules of CONTRIBUTING.md that a machine can check."""
import ast
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import networkx
import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / 'dms_razor'
SOURCES = sorted(
    path for folder in ('dms_razor', 'tools', 'examples')
    for path in (REPO / folder).rglob('*.py'))
#: Functions that import from this package when they are called -> why.
IMPORTS_LATER = {
    ('dms_razor/__init__.py', '__getattr__'): 'importing dms_razor is light',
}
#: Modules without a test file of their own -> where they are tested.
TESTED_WITH_OTHERS = {
    '__main__': 'tests/test_command.py',
    'core/selectors': 'tests/test_search_selector.py',
    'deploy/check': 'tests/test_deploy/test_write.py',
    'deploy/outputs': 'tests/test_deploy/test_write.py',
    'deploy/suppression': 'tests/test_deploy/test_boxes.py',
    'masking/compiled_weights': 'tests/test_masking/test_products.py',
    'masking/fused_weights': 'tests/test_masking/test_products.py',
    'masking/input_mask': 'tests/test_masking/test_layers.py',
    'masking/written_norms': 'tests/test_masking/test_norms.py',
    'openmmlab/hooks/checkpoint': 'tests/test_tools/test_subnet_checkpoint.py',
    'tracing/builder': 'tests/test_tracing/test_units.py',
}


def tree(path):
    return ast.parse(path.read_text(encoding='utf-8'), str(path))


def functions(path):
    return [
        node for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def lines(*folders):
    return sum(
        path.read_text(encoding='utf-8').count('\n') for folder in folders
        for path in (REPO / folder).rglob('*.py'))


def lint(folder):
    """Check the contracts of pyproject.toml."""
    return subprocess.run([
        sys.executable, '-c',
        'import sys; from importlinter.cli import lint_imports;'
        'sys.path.insert(0, "."); sys.exit(lint_imports(no_cache=True))'
    ],
                          cwd=folder,
                          capture_output=True,
                          text=True)


def test_layers():
    found = lint(REPO)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize('module, line, contract', [
    ('core/topk', 'from ..space import Space', 'layers'),
    ('masking/attach', 'import mmengine', 'OpenMMLab is'),
    ('core/layout', 'from .bank import Bank', 'circle'),
    ('search', 'from .compat.shims import apply', 'compat'),
    ('tracing/units', 'def f():\n    from ..masking import attach', 'layers'),
])
def test_what_breaks_a_contract_is_told(module, line, contract, tmp_path):
    shutil.copy(REPO / 'pyproject.toml', tmp_path)
    shutil.copytree(PACKAGE, tmp_path / 'dms_razor')
    path = tmp_path / 'dms_razor' / f'{module}.py'
    path.write_text(f'{path.read_text()}\n\n{line}\n')
    found = lint(tmp_path)
    assert found.returncode == 1
    broken = [text for text in found.stdout.splitlines() if 'BROKEN' in text]
    assert any(contract in text for text in broken), found.stdout


@pytest.fixture(scope='module')
def graph():
    """Which module imports which; names of other packages are their tops."""
    return grimp.build_graph(
        'dms_razor', include_external_packages=True, cache_dir=None)


def test_no_circle_of_single_modules(graph):
    """Packages' own ``__init__`` included, which the contracts leave out."""
    network = networkx.DiGraph(
        (module, imported) for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if module != 'dms_razor')
    circles = [
        circle for circle in networkx.strongly_connected_components(network)
        if len(circle) > 1
    ]
    assert not circles


def test_core_needs_torch_and_numpy_alone(graph):
    below = ('dms_razor.core', 'dms_razor.errors', 'dms_razor.moved')
    others = {'torch', 'numpy', *sys.stdlib_module_names}
    for module in graph.find_descendants('dms_razor.core'):
        for imported in graph.find_modules_directly_imported_by(module):
            assert imported.startswith(below) or imported in others, module
    for path in (PACKAGE / 'core').glob('*.py'):
        names = {
            name.name
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom) and node.module == 'torch'
            for name in node.names
        }
        assert path.stem == 'bank' or 'nn' not in names, 'for Bank.to() alone'


def test_few_rooms():
    # __main__ has no content of its own
    assert len(list(PACKAGE.glob('*[!_].py'))) <= 9


@pytest.mark.parametrize(
    'path', SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_one_concept_a_file(path):
    assert path.read_text(encoding='utf-8').count('\n') <= 400
    for function in functions(path):
        length = function.end_lineno - function.lineno + 1
        assert length <= 60, f'{function.name} has {length} lines'


def test_nothing_is_imported_late_to_hide_a_circle():
    found = set()
    for path in PACKAGE.rglob('*.py'):
        for function in functions(path):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (
                        node.level or node.module.startswith('dms_razor')):
                    found.add(
                        (path.relative_to(REPO).as_posix(), function.name))
                if isinstance(node, ast.Import):
                    assert not any(
                        name.name.startswith('dms_razor')
                        for name in node.names), path
    assert found == set(IMPORTS_LATER)


def test_tests_mirror_the_package():
    for path in PACKAGE.rglob('*.py'):
        name = path.relative_to(PACKAGE).with_suffix('')
        if path.name in ('__init__.py', 'version.py') \
                or name.as_posix() in TESTED_WITH_OTHERS:
            continue
        folder = REPO.joinpath('tests',
                               *(f'test_{part}' for part in name.parts[:-1]))
        found = [
            test for test in folder.glob(f'test_{name.name}*')
            if test.is_dir() or test.stem == f'test_{name.name}'
            or test.stem.startswith(f'test_{name.name}_')
        ]
        assert found, f'{name} has no test in {folder}'
    for name, where in TESTED_WITH_OTHERS.items():
        assert (PACKAGE / f'{name}.py').exists() and (REPO / where).exists()


def test_enough_tests():
    assert lines('tests') >= .6 * lines('dms_razor', 'tools', 'examples')
