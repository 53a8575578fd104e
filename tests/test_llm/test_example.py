# Copyright (c) dms_razor contributors. All rights reserved.
"""examples/prune_language_model.py from start to end, on a generated text."""
import random
import re
import subprocess
import sys

import pytest

import dms_razor.llm

transformers = pytest.importorskip('transformers', exc_type=ImportError)


def test_the_page_runs(tmp_path, repo, monkeypatch):
    """docs/en/language_models.md, on a network of random numbers."""
    import torch
    page = (repo / 'docs' / 'en' / 'language_models.md').read_text()
    search, load = re.findall(r'```python\n(.*?)```', page, re.S)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=30,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4))
    model.save_pretrained('model')
    words = torch.arange(16).view(2, 8)
    exec(
        search,
        dict(
            name='model',
            words=words,
            tokenizer=None,
            loader=[dict(input_ids=words, labels=words)] * 3))
    names = {}
    exec(load, names)
    assert names['model'].config.num_hidden_layers == 2


def test_it_ends_with_a_table_and_a_folder(tmp_path, repo):
    from tokenizers import Tokenizer, models, pre_tokenizers
    words = [f'w{n}' for n in range(30)]
    tokenizer = Tokenizer(
        models.WordLevel({
            w: n
            for n, w in enumerate(words)
        }, unk_token='w0'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=30,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=True))
    model.save_pretrained(tmp_path / 'model')
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer).save_pretrained(tmp_path / 'model')
    draw, text = random.Random(0), []
    for _ in range(2000):  # each word is followed by one of two
        last = int(text[-1][1:]) if text else 0
        text.append(words[(3 * last + draw.randint(1, 2)) % 30])
    (tmp_path / 'text.txt').write_text(' '.join(text))
    done = subprocess.run([
        sys.executable,
        str(repo / 'examples' / 'prune_language_model.py'),
        str(tmp_path / 'model'),
        str(tmp_path / 'text.txt'),
        str(tmp_path / 'text.txt'),
        str(tmp_path / 'out'), '--steps', '20', '--finetune', '10', '--length',
        '16'
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    rows = [
        line.split(' | ') for line in done.stdout.splitlines()
        if line.startswith('| ')
    ][2:]
    assert [row[0] for row in rows
            ] == ['| original', '| narrowed evenly', '| searched']
    sizes = [int(row[1].replace(',', '')) for row in rows]
    assert sizes[1] <= .8 * sizes[0] and .79 * sizes[0] < sizes[2]
    assert sizes[2] <= .8 * sizes[0]
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path /
                                                              'out' / 'hf')
    assert sum(p.numel() for p in found.parameters()) == sizes[2]
    assert dms_razor.llm.FamilyError
