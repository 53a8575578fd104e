# Copyright (c) dms_razor contributors. All rights reserved.
"""Whether torch.compile reads what runs, in older versions of PyTorch too."""
import importlib

import torch

from dms_razor.network import compiling


def test_a_compiled_function_knows():
    seen = torch.compile(
        lambda x: x + 1 if compiling.compiling() else x,
        backend='eager',
        fullgraph=True)
    assert seen(torch.ones(1)) == 2
    assert not compiling.compiling() and not compiling.exporting()


def test_before_pytorch_had_it(monkeypatch):
    for name in ('is_compiling', 'is_exporting'):
        monkeypatch.delattr(torch.compiler, name, raising=False)
    monkeypatch.setattr(torch._utils, 'is_compiling', bool, raising=False)
    try:
        old = importlib.reload(compiling)
        assert old.compiling() is False and old.exporting() is False
    finally:
        monkeypatch.undo()
        importlib.reload(compiling)
