# Copyright (c) dms_razor contributors. All rights reserved.
"""Examples are run, and are what they say."""
import ast
import runpy


def test_the_minimal_example_meets_its_budget(repo, capsys):
    path = repo / 'examples' / 'dms_minimal.py'
    found = runpy.run_path(str(path))['main']()
    assert .99 * found['budget'] <= found['cost'] <= found['budget']
    assert found['accuracy'] > .8
    assert 'of the budget' in capsys.readouterr().out


def test_the_minimal_example_needs_torch_and_the_core_alone(repo):
    source = (repo / 'examples' / 'dms_minimal.py').read_text()
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert all(
        name.split('.')[0] == 'torch' or name.startswith('dms_razor.core')
        for name in modules)
    assert len(source.splitlines()) < 140
