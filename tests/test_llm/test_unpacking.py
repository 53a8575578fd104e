# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches of 4- and 8-bit layers of bitsandbytes, cut and written."""
import copy

import pytest
import torch
from quantised_nets import (KINDS, WORDS, bitsandbytes, gradient, in_double,
                            in_floats, logits, quantised, rounding, search_of,
                            searched, transformers)

from dms_razor import Search
from dms_razor.adapters.quantised import (is_quantised_linear, packed_weights,
                                          weight_of_units)
from dms_razor.llm import dequantise, write_folder
from dms_razor.masking import unmask
from dms_razor.subnet import build_subnet
from dms_razor.trace import trace


def twin_of(model):
    """An independent one: each weight written out by bitsandbytes."""
    twin = copy.deepcopy(model)
    for path, layer in list(twin.named_modules()):
        if is_quantised_linear(layer):
            parent, _, name = path.rpartition('.')
            setattr(twin.get_submodule(parent), name, ordinary(layer))
    return twin


def ordinary(layer):
    plain = torch.nn.Linear(layer.in_features, layer.out_features, False)
    weight, ops = layer.weight, bitsandbytes.functional
    if isinstance(layer, bitsandbytes.nn.Linear8bitLt):
        scale = layer.state.SCB if weight.SCB is None else weight.SCB
        numbers = weight.data.float() * scale[:, None] / 127
    else:
        numbers = ops.dequantize_4bit(weight.data, weight.quant_state)
    plain.weight = torch.nn.Parameter(numbers.float(), requires_grad=False)
    return plain


@pytest.mark.parametrize('kind', KINDS)
def test_the_weight_that_bitsandbytes_writes_out(floats, kind):
    for layer in quantised(floats, kind).model.layers[0].modules():
        if is_quantised_linear(layer):
            expected = ordinary(layer).weight
            found = weight_of_units(layer, torch.float32)
            assert (found - expected).abs().max() <= \
                2 * torch.finfo(torch.float32).eps * expected.abs().max()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('metric', ['params', 'macs'])
def test_units_and_costs_are_those_of_floating_point(floats, kind, metric):
    found = search_of(quantised(floats, kind), metric)
    model = in_floats(floats)
    expected = search_of(model, metric)
    assert found.space.units == expected.space.units
    assert {u.kind for u in found.space.units} == {'width', 'heads', 'depth'}
    assert 'model.embed_tokens' in {u.name for u in found.space.units}
    assert found.preflight().supernet == expected.preflight().supernet
    assert found.preflight().supernet['params'] == model.num_parameters()
    assert packed_weights(found.model)


def test_a_space_that_takes_no_memory(floats, tmp_path):
    """Traced on the meta device, proved on another network of the code."""
    config = transformers.AutoConfig.from_pretrained(floats)
    inputs = dict(
        input_ids=WORDS[:1],
        attention_mask=torch.ones(1, 1, 9, 9).tril().bool())
    with torch.device('meta'):
        plan = transformers.LlamaForCausalLM(config)
    space = trace(
        plan, {
            name: x.to('meta')
            for name, x in inputs.items()
        },
        batch_size=1,
        twin=transformers.LlamaForCausalLM(config).double(),
        probe_inputs=inputs)
    model = quantised(floats, 'nf4')
    search = Search(
        model, space=space, target='65%', metric='params', total_steps=5)
    assert search.space.units == search_of(quantised(floats,
                                                     'nf4')).space.units
    searched(model, search)
    export = search.export(tmp_path / 'a', inputs=inputs, picture=False)
    with search.masks('subnet'):
        expected = logits(model)
    low = rounding(copy.deepcopy(export.model), logits, torch.float32)
    assert (logits(export.model) - expected).abs().max() < 8 * low


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_are_those_of_the_weights_written_out(floats, kind):
    """In float32, by what float32 rounds of the same network."""
    model = quantised(floats, kind)
    twin = twin_of(model)
    found = gradient(model, search_of(model)).double()
    other = search_of(twin)
    expected = gradient(twin, other).double()
    unmask(twin)
    twin.double()
    again = search_of(twin)
    exact = in_double(twin, lambda net: gradient(net, again))
    least = float((expected - exact).abs().max())
    assert exact.abs().max() > 1e-4
    assert 0 < least < 1e-5 * exact.abs().max()
    assert (found - exact).abs().max() < 4 * least


@pytest.mark.parametrize('kind, dtype, compute', [
    *((kind, torch.float32, torch.float32) for kind in KINDS),
    ('nf4', torch.bfloat16, torch.bfloat16),
    ('nf4', torch.float32, torch.bfloat16),
])
def test_searched_and_exported(floats, tmp_path, kind, dtype, compute):
    """Dequantised and cut, it computes what the masked network does."""
    model = quantised(floats, kind, dtype, compute)
    search = search_of(model)
    searched(model, search)
    assert search.bank.updates == 5 and search.bank.ratios.max() > .1
    assert search.unread_units() == []
    export = search.export(tmp_path / 'subnet', picture=False)
    subnet = export.model
    assert not packed_weights(subnet)
    assert {p.dtype for p in subnet.parameters()} == {dtype}
    assert 'dequantised' in (tmp_path / 'subnet' / 'report.md').read_text()
    with search.masks('subnet'):
        expected = logits(model).double()
    exact = in_double(copy.deepcopy(subnet).double(), logits)
    low = rounding(copy.deepcopy(subnet), logits, compute)
    assert (expected - exact).abs().max() < 4 * low
    assert (logits(subnet).double() - exact).abs().max() < 4 * low
    assert 0 < low < 50 * torch.finfo(compute).eps * exact.abs().max()
    # The structure, apart from what is rounded: both sides in float64.
    whole = unmask(dequantise(copy.deepcopy(model))).double()
    other = Search(
        whole,
        space=search.space,
        bank=search.bank,
        target=search.target,
        metric='params')
    with other.masks('subnet'):
        assert (in_double(whole, logits) - exact).abs().max() < 1e-9


@pytest.mark.parametrize('kind', KINDS)
def test_from_the_floating_point_weights_to_quantised_ones(
        floats, tmp_path, kind):
    """Quantise, search, cut the original, write, load, quantise again."""
    search = search_of(
        quantised(floats, kind),
        units={
            '*.mlp.gate_proj': dict(divisor=64),
            'model.embed_tokens': dict(fixed=True)
        })
    searched(search.model, search)
    original = in_floats(floats).double()
    export = search.export(
        tmp_path / 'subnet', weights=in_floats(floats), picture=False)
    other = Search(
        original,
        space=search.space,
        bank=search.bank,
        target=search.target,
        metric='params')
    with other.masks('subnet'):
        expected = in_double(original, logits)
    subnet = in_double(copy.deepcopy(export.model).double(), logits)
    assert (subnet - expected).abs().max() < 1e-9
    # subnet.json is one of the floating-point network.
    built = build_subnet(
        in_floats(floats), tmp_path / 'subnet', tmp_path / 'subnet/subnet.pth')
    assert torch.equal(logits(built), logits(export.model))
    write_folder(export, tmp_path / 'hf')
    assert 'quantization_config' not in (tmp_path /
                                         'hf/config.json').read_text()
    plain = in_floats(tmp_path / 'hf')
    assert torch.allclose(logits(plain), logits(built), atol=1e-5)
    settings = dict(load_in_8bit=True) if kind == 'int8' else dict(
        load_in_4bit=True, bnb_4bit_quant_type=kind)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / 'hf',
        quantization_config=transformers.BitsAndBytesConfig(**settings))
    assert packed_weights(again)
    assert again.get_memory_footprint() < .7 * plain.get_memory_footprint()
    close = torch.nn.functional.cosine_similarity(
        logits(again.train()), logits(plain), dim=-1)
    assert close.mean() > .8


def test_packed_in_memory_of_floating_point_numbers(floats, tmp_path):
    """As for FSDP: four numbers in each bfloat16."""
    plain = quantised(floats, 'nf4')
    model = quantised(floats, 'nf4', bnb_4bit_quant_storage=torch.bfloat16)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.bfloat16 and weight.numel() == 64 * 128 / 4
    searches = [search_of(net) for net in (plain, model)]
    found = [gradient(*pair) for pair in zip((plain, model), searches)]
    assert torch.allclose(*found, rtol=1e-4, atol=1e-6)
    searched(model, searches[1])
    subnet = searches[1].export(tmp_path / 'a', picture=False).model
    assert {p.dtype for p in subnet.parameters()} == {torch.float32}
    with searches[1].masks('subnet'):
        low = rounding(copy.deepcopy(subnet), logits, torch.float32)
        assert (logits(subnet) - logits(model)).abs().max() < 8 * low
