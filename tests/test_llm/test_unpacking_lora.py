# Copyright (c) dms_razor contributors. All rights reserved.
"""QLoRA: adapters of PEFT around quantised layers; its own teacher."""
import copy

import pytest
import torch
from quantised_nets import (BATCH, adapted, gradient, in_double, in_floats,
                            logits, quantised, rounding, search_of)

from dms_razor import Search
from dms_razor.adapters.quantised import packed_weights
from dms_razor.llm import Distillation, dequantise, write_folder
from tools._kept import kept_bytes


@pytest.mark.parametrize('before', [True, False])
@pytest.mark.parametrize('kind', ['nf4', 'int8'])
def test_adapters_of_peft(floats, tmp_path, before, kind):
    original = quantised(floats, kind)
    # Evaluated, layers of 8 bits round their inputs; a teacher does, too.
    expected = logits(original.train(kind != 'int8'))
    if before:
        net = adapted(original)
        search = search_of(net)
    else:
        search = search_of(original)
        net = adapted(original)
    assert not any('lora' in unit.name for unit in search.space.units)
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], .1)
    search.attach(optimizer)
    distil = Distillation(search, adapters=net)
    net.train()
    for _ in range(5):
        out = net(**BATCH)
        teacher = distil.logits(BATCH)
        assert torch.allclose(teacher, expected, atol=1e-4)
        optimizer.zero_grad()
        search.loss(out.loss + distil(out.logits, BATCH)).backward()
        optimizer.step()
    assert search.bank.updates == 5 and search.bank.ratios.max() > .1
    with search.masks('subnet'):
        wanted = logits(net)
    if before:
        export = search.export(tmp_path / 'subnet', picture=False)
        found = export.model.merge_and_unload()
    else:
        dequantise(net).merge_and_unload()
        found = search.export(tmp_path / 'subnet', picture=False).model
    assert not packed_weights(found)
    low = rounding(copy.deepcopy(found), logits, torch.float32)
    assert (logits(found) - wanted).abs().max() < 8 * low
    assert write_folder(found, tmp_path / 'hf')['difference'] < 1e-5


@pytest.mark.parametrize('before', [True, False])
def test_deltas_go_along_with_the_original_weights(floats, tmp_path, before):
    """QLoRA, then the adapters beside the weights in floating point."""
    peft = pytest.importorskip('peft', reason='QLoRA needs PEFT')
    model = quantised(floats, 'nf4')
    if before:
        net = adapted(model)
        search = search_of(net)
    else:
        search = search_of(model)
        net = adapted(model)
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], .1)
    search.attach(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        search.loss(net(**BATCH).loss).backward()
        optimizer.step()
    net.save_pretrained(tmp_path / 'adapter')
    original = peft.PeftModel.from_pretrained(
        in_floats(floats), tmp_path / 'adapter')
    if not before:
        net.unload()
        original = original.merge_and_unload()
    export = search.export(
        tmp_path / 'subnet', weights=original, picture=False)
    found = export.model.merge_and_unload() if before else export.model
    other = Search(
        original.double(),
        space=search.space,
        bank=search.bank,
        target=search.target,
        metric='params')
    with other.masks('subnet'):
        expected = in_double(original, logits)
    # Sums of weights and deltas are rounded to float32 before.
    found = in_double(found.double(), logits)
    assert (found - expected).abs().max() < (1e-5 if before else 1e-9)
    assert not packed_weights(original)


def test_it_is_its_own_teacher(floats):
    """Evaluated and trained in turns, gradients stay what they are."""
    model = quantised(floats, 'nf4')
    search = search_of(model)
    before = gradient(model, search)
    distil = Distillation(search)
    for _ in range(2):
        out = model(**BATCH)
        assert distil(out.logits, BATCH) > 0
    model.eval()
    logits(model)
    assert torch.allclose(gradient(model.train(), search), before, rtol=1e-4)
    assert before.abs().min() > 0


def test_bytes_beneath_adapters(floats):
    """At most a twentieth more than training the same adapters."""
    net = adapted(quantised(floats, 'nf4'))
    words = dict(input_ids=torch.arange(128).view(4, 32) % 64)

    def forward():
        return net(**words, use_cache=False).logits.sum()

    forward()
    expected = kept_bytes(net, forward)
    search = search_of(
        net, depth=False, units={'*embed_tokens': dict(fixed=True)})
    net.train()
    found = kept_bytes(net, forward)
    print(f'search / plain: {found / expected:.3f}')
    assert search.unread_units() == [] and found <= 1.05 * expected
