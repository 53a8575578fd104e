# Copyright (c) dms_razor contributors. All rights reserved.
"""A small language model in a folder, with a text that has a pattern."""
import random

import pytest
import torch

WORDS = [f'w{n}' for n in range(30)]


@pytest.fixture(scope='session')
def language(tmp_path_factory):
    """A folder of Hugging Face; text.txt is in it, too."""
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    from tokenizers import Tokenizer, models, pre_tokenizers
    folder = tmp_path_factory.mktemp('language')
    tokenizer = Tokenizer(
        models.WordLevel({
            w: n
            for n, w in enumerate(WORDS)
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
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token='w0',
        eos_token='w0').save_pretrained(folder)
    draw, text = random.Random(0), []
    for _ in range(2000):  # each word is followed by one of two
        last = int(text[-1][1:]) if text else 0
        text.append(WORDS[(3 * last + draw.randint(1, 2)) % 30])
    (folder / 'text.txt').write_text(' '.join(text))
    return folder


@pytest.fixture(scope='session')
def floats(tmp_path_factory):
    """A Llama in floating point, with weights that are no small noise."""
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(.3 * torch.rand(parameter.shape))
            else:
                parameter.mul_(5)
    path = tmp_path_factory.mktemp('llama')
    model.save_pretrained(path)
    return path
