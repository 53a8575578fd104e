# Copyright (c) dms_razor contributors. All rights reserved.
"""Small language models of Hugging Face, and short searches of them."""
import subprocess
import sys

import pytest
import torch

from dms_razor import Search

transformers = pytest.importorskip('transformers', exc_type=ImportError)

WORDS = torch.arange(9)[None] % 53


def language(family='Llama', **settings):
    config = getattr(transformers, f'{family}Config')(**{
        **dict(
            vocab_size=53,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=0),
        **settings
    })
    torch.manual_seed(0)
    name = family.replace('Text', '')
    model = getattr(transformers, f'{name}ForCausalLM')(config)
    with torch.no_grad():  # norms that begin at 1 or 0 would hide an error
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(.3 * torch.rand(parameter.shape))
    return model.eval()


def exported(model, path, target='65%', **settings):
    search = Search(
        model,
        dict(input_ids=WORDS),
        target,
        metric='params',
        total_steps=3,
        **settings)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    search.attach(optimizer)
    for _ in range(3):
        loss = search.loss(model(input_ids=WORDS, labels=WORDS).loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return search.export(path, picture=False)


_LOAD = '''
import sys
if sys.argv[3] == 'ours':
    import dms_razor.llm
else:  # a torchvision that does not match torch is no concern of the test
    from dms_razor.compat.shims import torchvision_schemas
    torchvision_schemas()
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(
    sys.argv[1], trust_remote_code=sys.argv[3] == 'code').eval()
words = torch.arange(9)[None] % 53
with torch.no_grad():
    torch.save([
        model(words, use_cache=False).logits,
        *(model.generate(
            words, max_new_tokens=6, do_sample=False, use_cache=cache)
          for cache in (True, False))
    ], sys.argv[2])
print(type(model).__name__)
'''


def loaded_elsewhere(folder, how):
    """A folder in a new process: its class, logits of WORDS, and what it
    generates with and without a cache."""
    out = folder.with_suffix('.pt')
    done = subprocess.run(
        [sys.executable, '-c', _LOAD,
         str(folder), str(out), how],
        capture_output=True,
        text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1], *torch.load(out)


def generated(model, words, number, **settings):
    """So many words more, with and without a cache."""
    return [
        model.generate(
            words,
            max_new_tokens=number,
            do_sample=False,
            use_cache=cache,
            eos_token_id=None,
            **settings) for cache in (True, False)
    ]


def numbers(file):
    """What a file says of its network."""
    fields = pytest.importorskip('gguf').GGUFReader(file).fields
    return {name: field.contents() for name, field in fields.items()}


def tokenizer(byte_level=False):
    """Joins 'a b', then 'ab c'; 53 tokens with the network's others."""
    from tokenizers import (AddedToken, Tokenizer, decoders, models,
                            normalizers, pre_tokenizers)
    letters = ['a', 'b', 'c', 'Ġ' if byte_level else '▁']
    vocab = ['<unk>', '<s>', '</s>', *letters, 'bc', 'ab', 'abc']
    if not byte_level:
        vocab += [f'<0x{n:02X}>' for n in (0x0A, 0x64)]
    made = Tokenizer(
        models.BPE({
            t: n
            for n, t in enumerate(vocab)
        }, [('a', 'b'), ('ab', 'c'), ('b', 'c')],
                   unk_token='<unk>',
                   byte_fallback=not byte_level))
    if byte_level:
        made.pre_tokenizer = pre_tokenizers.ByteLevel()
    else:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend('▁'),
             normalizers.Replace(' ', '▁')])
        made.decoder = decoders.ByteFallback()
    made.add_special_tokens([AddedToken('<s>'), AddedToken('</s>')])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>')
