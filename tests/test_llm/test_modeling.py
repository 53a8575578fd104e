# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers of sizes of their own."""
import ast
from pathlib import Path

import pytest

from dms_razor.llm import modeling


def test_the_file_stands_alone():
    """It is copied into folders: nothing of ours, and nothing else."""
    code = ast.parse(Path(modeling.__file__).read_text())
    found = {
        name.name
        for node in ast.walk(code) if isinstance(node, ast.Import)
        for name in node.names
    } | {
        node.module
        for node in ast.walk(code) if isinstance(node, ast.ImportFrom)
    }
    assert found == {'copy', 'transformers'}


def test_each_layer_has_its_sizes():
    pytest.importorskip('transformers', exc_type=ImportError)
    kind, model = modeling.SIZED['llama']
    sizes = [
        dict(
            num_attention_heads=4, num_key_value_heads=2, intermediate_size=9),
        dict(
            num_attention_heads=3, num_key_value_heads=3, intermediate_size=5)
    ]
    config = kind(
        vocab_size=11,
        hidden_size=10,
        head_dim=4,
        num_hidden_layers=2,
        layer_sizes=sizes)
    layers = model(config).model.layers
    assert [x.self_attn.q_proj.out_features for x in layers] == [16, 12]
    assert [x.self_attn.k_proj.out_features for x in layers] == [8, 12]
    assert [x.mlp.down_proj.in_features for x in layers] == [9, 5]
    assert layers[0].self_attn.config is layers[1].self_attn.config
