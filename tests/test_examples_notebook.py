# Copyright (c) dms_razor contributors. All rights reserved.
"""The notebook in examples/: its cells run in turn, and show what they say."""
import ast
import json
from pathlib import Path

import onnx

NOTEBOOK = Path(__file__).resolve().parents[1] / 'examples/search.ipynb'


def cells(kind):
    content = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    assert content['nbformat'] == 4
    return [
        ''.join(cell['source']) for cell in content['cells']
        if cell['cell_type'] == kind
    ]


def shown(code, names):
    """Run a cell; returns the value of its last expression, if any."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, 'cell', 'exec'), names)
    return last and eval(
        compile(ast.Expression(last.value), 'cell', 'eval'), names)


def test_the_notebook_runs_from_start_to_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(NOTEBOOK.parent)
    names = {}
    values = [
        shown(code.replace('EPOCHS = 20', 'EPOCHS = 5'), names)
        for code in cells('code')
    ]
    assert 'EPOCHS = 20' in cells('code')[0]
    _, preflight, status, export, _, path = values
    assert 'Pre-flight' in str(preflight)
    assert '<table' in status._repr_html_() + export._repr_html_()
    macs = export.manifest.macs
    assert .95 < 2 * macs['counted'] / macs['supernet'] <= 1
    assert names['as_cut'] > .5 and names['trained'] > .9
    onnx.checker.check_model(str(path))


def test_no_output_is_committed():
    content = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    for cell in content['cells']:
        assert not cell.get('outputs') and not cell.get('execution_count')
    assert any('two minutes' in text for text in cells('markdown'))
