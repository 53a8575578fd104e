# Copyright (c) dms_razor contributors. All rights reserved.
"""Llama with 4- and 8-bit layers of bitsandbytes, on the CPU."""
import copy

import pytest
import torch

from dms_razor import Search
from dms_razor.adapters.quantised import is_quantised_linear
from dms_razor.proof.precision import double_precision

transformers = pytest.importorskip('transformers', exc_type=ImportError)
bitsandbytes = pytest.importorskip(
    'bitsandbytes', reason='tests of quantised weights need bitsandbytes')
pytest.importorskip('accelerate', reason='transformers quantises by it')

KINDS = ['nf4', 'fp4', 'int8']
WORDS = torch.arange(18).view(2, 9)
BATCH = dict(input_ids=WORDS, labels=WORDS)
NAMES = [f'{name}_proj' for name in 'q k v o gate up down'.split()]


def in_floats(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype)


def quantised(folder, kind, dtype=torch.float32, compute=None, **more):
    """Loaded as users do; all weights at rest."""
    settings = dict(load_in_8bit=True) if kind == 'int8' else dict(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute or dtype,
        **more)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=transformers.BitsAndBytesConfig(**settings))
    assert sum(map(is_quantised_linear, model.modules())) == 21
    return model.train().requires_grad_(False)


def search_of(model, metric='params', **settings):
    return Search(
        model,
        dict(input_ids=WORDS[:1]),
        '65%',
        metric=metric,
        total_steps=5,
        **settings)


def searched(model, search, steps=5):
    for _ in range(steps):
        search.loss(model(**BATCH).loss).backward()
        search.step()


def logits(model):
    with torch.no_grad():
        return model(input_ids=WORDS, use_cache=False).logits


def in_double(model, run):
    """A run in float64 throughout: Llama's norms ask for float32 by name."""
    assert model.dtype == torch.float64
    with double_precision():
        return run(model)


def rounding(model, run, dtype):
    """How far computing in ``dtype`` moves what a network returns, by a run
    of the same network in float64; both are sums in some order of theirs."""
    exact = in_double(copy.deepcopy(model).double(), run)
    return float((run(model.to(dtype)).double() - exact).abs().max())


def adapted(model, **settings):
    peft = pytest.importorskip('peft', reason='QLoRA needs PEFT')
    torch.manual_seed(1)
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=4, target_modules=NAMES, init_lora_weights=False, **settings))


def gradient(model, search, ratio=.35):
    """Of every mask, of the loss of the next words."""
    search.bank.ratios = torch.full_like(search.bank.ratios, ratio)
    search.bank.refresh()
    return torch.autograd.grad(model(**BATCH).loss, search.bank.masks)[0]
