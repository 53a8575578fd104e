# Copyright (c) dms_razor contributors. All rights reserved.
"""PEFT's adapters: before and after the search, merged, and its teacher."""
import copy

import pytest
import torch

from dms_razor import Search
from dms_razor.llm import Distillation, write_folder

transformers = pytest.importorskip('transformers', exc_type=ImportError)
peft = pytest.importorskip('peft', reason='tests of LoRA need PEFT')

WORDS = torch.arange(10).view(2, 5)
NAMES = [f'{name}_proj' for name in 'q k v o gate up down'.split()]


def language():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config).double()


def adapted(model):
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=3, target_modules=NAMES, init_lora_weights=False)
    return peft.get_peft_model(model, config)


def search_of(model):
    return Search(
        model,
        dict(input_ids=WORDS[:1]),
        '70%',
        metric='params',
        total_steps=5,
        depth=False,
        units={'*embed_tokens': dict(fixed=True)})


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=WORDS, use_cache=False).logits


@pytest.mark.parametrize('before', [True, False])
def test_searched_merged_written(before, tmp_path):
    original = language()
    expected = logits(original)
    model = copy.deepcopy(original)
    if before:
        net = adapted(model)
        search = search_of(net)
    else:
        search = search_of(model)
        net = adapted(model)
    assert {
        unit.kind: unit.size
        for unit in search.space.units
    } == dict(
        width=40, heads=2)
    assert not any('lora' in unit.name for unit in search.space.units)
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], .1)
    search.attach(optimizer)
    distil = Distillation(search, adapters=net)
    batch = dict(input_ids=WORDS, labels=WORDS)
    net.train()
    for _ in range(5):
        out = net(**batch)
        assert torch.allclose(distil.logits(batch), expected)
        optimizer.zero_grad()
        search.loss(out.loss + distil(out.logits, batch)).backward()
        optimizer.step()
    assert search.bank.ratios.max() > .1
    with search.masks('subnet'):
        searched = logits(net)
    if before:
        export = search.export(tmp_path / 'subnet', picture=False)
        found = export.model.merge_and_unload()
    else:
        net.merge_and_unload()
        found = search.export(tmp_path / 'subnet', picture=False).model
    assert (logits(found) - searched).abs().max() < 1e-9
    assert found.model.layers[0].mlp.up_proj.out_features < 40
    told = write_folder(found, tmp_path / 'hf')
    assert told['difference'] < 1e-5


def test_what_trains_beside_adapters_is_refused():
    model = language()
    search = search_of(model)
    net = adapted(model)
    net.get_submodule('base_model.model.lm_head').requires_grad_(True)
    with pytest.raises(ValueError, match='lm_head.*adapters='):
        Distillation(search, adapters=net)
    with pytest.raises(ValueError, match='adapters=.*teacher='):
        Distillation(teacher=language(), adapters=net)
