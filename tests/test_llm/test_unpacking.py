# Copyright (c) dms_razor contributors. All rights reserved.
"""Llama with 4- and 8-bit layers of bitsandbytes, and QLoRA, on the CPU."""
import copy

import pytest
import torch
from kept_bytes import kept_bytes

from dms_razor import Search
from dms_razor.adapters.quantised import (is_quantised_linear, packed_weights,
                                          weight_of_units)
from dms_razor.llm import Distillation, dequantise, write_folder
from dms_razor.masking import unmask
from dms_razor.proof.precision import double_precision
from dms_razor.subnet import build_subnet
from dms_razor.trace import trace

transformers = pytest.importorskip('transformers', exc_type=ImportError)
bitsandbytes = pytest.importorskip(
    'bitsandbytes', reason='tests of quantised weights need bitsandbytes')
pytest.importorskip('accelerate', reason='transformers quantises by it')

KINDS = ['nf4', 'fp4', 'int8']
WORDS = torch.arange(18).view(2, 9)
BATCH = dict(input_ids=WORDS, labels=WORDS)
NAMES = [f'{name}_proj' for name in 'q k v o gate up down'.split()]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A Llama in floating point, with weights that are no small noise."""
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


def in_floats(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype)


def quantised(folder, kind, dtype=torch.float32, compute=None):
    """Loaded as users do; all weights at rest."""
    settings = dict(load_in_8bit=True) if kind == 'int8' else dict(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute or dtype)
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


def gradient(model, search, ratio=.35):
    """Of every mask, of the loss of the next words."""
    search.bank.ratios = torch.full_like(search.bank.ratios, ratio)
    search.bank.refresh()
    return torch.autograd.grad(model(**BATCH).loss, search.bank.masks)[0]


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


def rounding(model, run, dtype):
    """How far computing in ``dtype`` moves what a network returns, by a run
    of the same network in float64; both are sums in some order of theirs."""
    exact = in_double(copy.deepcopy(model).double(), run)
    return float((run(model.to(dtype)).double() - exact).abs().max())


@pytest.mark.parametrize('kind', KINDS)
def test_the_weight_that_bitsandbytes_writes_out(folder, kind):
    for layer in quantised(folder, kind).model.layers[0].modules():
        if is_quantised_linear(layer):
            expected = ordinary(layer).weight
            found = weight_of_units(layer, torch.float32)
            assert (found - expected).abs().max() <= \
                2 * torch.finfo(torch.float32).eps * expected.abs().max()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('metric', ['params', 'macs'])
def test_units_and_costs_are_those_of_floating_point(folder, kind, metric):
    found = search_of(quantised(folder, kind), metric)
    model = in_floats(folder)
    expected = search_of(model, metric)
    assert found.space.units == expected.space.units
    assert {u.kind for u in found.space.units} == {'width', 'heads', 'depth'}
    assert 'model.embed_tokens' in {u.name for u in found.space.units}
    assert found.preflight().supernet == expected.preflight().supernet
    assert found.preflight().supernet['params'] == model.num_parameters()
    assert packed_weights(found.model)


def test_a_space_that_takes_no_memory(folder, tmp_path):
    """Traced on the meta device, proved on another network of the code."""
    config = transformers.AutoConfig.from_pretrained(folder)
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
    model = quantised(folder, 'nf4')
    search = Search(
        model, space=space, target='65%', metric='params', total_steps=5)
    assert search.space.units == search_of(quantised(folder,
                                                     'nf4')).space.units
    searched(model, search)
    export = search.export(tmp_path / 'a', inputs=inputs, picture=False)
    with search.masks('subnet'):
        expected = logits(model)
    low = rounding(copy.deepcopy(export.model), logits, torch.float32)
    assert (logits(export.model) - expected).abs().max() < 8 * low


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_are_those_of_the_weights_written_out(folder, kind):
    """In float32, by what float32 rounds of the same network."""
    model = quantised(folder, kind)
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
def test_searched_and_exported(folder, tmp_path, kind, dtype, compute):
    """Dequantised and cut, it computes what the masked network does."""
    model = quantised(folder, kind, dtype, compute)
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
        folder, tmp_path, kind):
    """Quantise, search, cut the original, write, load, quantise again."""
    search = search_of(
        quantised(folder, kind),
        units={
            '*.mlp.gate_proj': dict(divisor=64),
            'model.embed_tokens': dict(fixed=True)
        })
    searched(search.model, search)
    original = in_floats(folder).double()
    export = search.export(
        tmp_path / 'subnet', weights=in_floats(folder), picture=False)
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
        in_floats(folder), tmp_path / 'subnet', tmp_path / 'subnet/subnet.pth')
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


def adapted(model, **settings):
    peft = pytest.importorskip('peft', reason='QLoRA needs PEFT')
    torch.manual_seed(1)
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=4, target_modules=NAMES, init_lora_weights=False, **settings))


@pytest.mark.parametrize('before', [True, False])
@pytest.mark.parametrize('kind', ['nf4', 'int8'])
def test_adapters_of_peft(folder, tmp_path, before, kind):
    original = quantised(folder, kind)
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
def test_deltas_go_along_with_the_original_weights(folder, tmp_path, before):
    """QLoRA, then the adapters beside the weights in floating point."""
    peft = pytest.importorskip('peft', reason='QLoRA needs PEFT')
    model = quantised(folder, 'nf4')
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
        in_floats(folder), tmp_path / 'adapter')
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


def test_it_is_its_own_teacher(folder):
    """Evaluated and trained in turns, gradients stay what they are."""
    model = quantised(folder, 'nf4')
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


def test_bytes_beneath_adapters(folder):
    """At most a twentieth more than training the same adapters."""
    net = adapted(quantised(folder, 'nf4'))
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
