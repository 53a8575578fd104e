# Copyright (c) dms_razor contributors. All rights reserved.
"""Folders that Hugging Face loads; where transformers is installed."""

import pytest
import torch
from hf_nets import WORDS, exported, generated, language, loaded_elsewhere

from dms_razor.llm import FamilyError, write_folder
from dms_razor.subnet import SubnetError
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

transformers = pytest.importorskip('transformers', exc_type=ImportError)


def logits(model, words=WORDS):
    with torch.no_grad():
        return model.eval()(words, use_cache=False).logits


@pytest.mark.parametrize(
    'family', ['Llama', 'Mistral', 'Qwen2', 'Qwen3', 'Gemma2', 'Gemma3Text'])
def test_families(family, tmp_path):
    fixed = {'model.embed_tokens': dict(fixed=True)}
    export = exported(language(family), tmp_path / 'subnet', units=fixed)
    told = write_folder(export, tmp_path / 'hf')
    assert told['difference'] < 1e-5 and not told['alike']
    kept = {p for p in export.model.parameters()}
    assert told['parameters'] == sum(p.numel() for p in kept)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    assert sum(p.numel() for p in model.parameters()) == told['parameters']


@pytest.mark.parametrize('how', ['ours', 'code'])
def test_loaded_in_a_new_process(how, tmp_path):
    """The hidden size, heads and blocks are pruned; saved again, too."""
    export = exported(language(), tmp_path / 'subnet')
    write_folder(export.model, tmp_path / 'hf', code=how == 'code')
    kind, found, *_ = loaded_elsewhere(tmp_path / 'hf', how)
    assert kind == 'SizedLlamaForCausalLM'
    assert (found - logits(export.model)).abs().max() < 1e-6
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    model.save_pretrained(tmp_path / 'again')
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path /
                                                              'again')
    assert torch.equal(logits(model), logits(again))


def test_generation_with_and_without_cache_and_padding(tmp_path):
    export = exported(language(), tmp_path / 'subnet')
    write_folder(export, tmp_path / 'hf')
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    words = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    mask = (words > 0).long()
    out = generated(model, words, 6, attention_mask=mask)
    assert torch.equal(*out) and out[0].shape == (2, 11)


def test_layers_that_are_alike_need_no_code_of_ours(tmp_path):
    model = language()
    export = exported(
        model, tmp_path / 'subnet', '80%', width=False, heads=False)
    told = write_folder(export, tmp_path / 'hf', code=True)
    assert told['alike'] and told['class'] == 'LlamaForCausalLM'
    assert len(told['sizes']) == 2, 'a removed layer is gone'
    assert not (tmp_path / 'hf' / 'modeling_sized.py').exists()
    plain = transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'hf')
    assert plain.config.num_hidden_layers == 2
    assert torch.equal(logits(plain), logits(export.model))


@pytest.mark.parametrize('family', ['Llama', 'Mistral', 'Qwen3'])
def test_tied_layers_are_a_plain_model(family, tmp_path):
    """One ratio for all layers; loaded where there is no dms_razor."""
    model = language(
        family, hidden_size=36, num_attention_heads=6, num_key_value_heads=3)
    units = {
        'model.embed_tokens': dict(fixed=True),
        '*.self_attn.heads': dict(choices=[2])
    }
    export = exported(
        model, tmp_path / 'subnet', layers='tied', depth=False, units=units)
    layers = export.model.model.layers
    sizes = {tuple(p.shape for p in layer.parameters()) for layer in layers}
    assert len(sizes) == 1 and layers[0].mlp.up_proj.out_features < 40
    told = write_folder(export, tmp_path / 'hf', code=True)
    assert told['alike'] and not list((tmp_path / 'hf').glob('*.py'))
    plain = getattr(transformers, f'{family}ForCausalLM')
    again = plain.from_pretrained(tmp_path / 'hf')
    assert torch.equal(logits(again), logits(export.model))
    if family == 'Llama':
        kind, found, *_ = loaded_elsewhere(tmp_path / 'hf', 'plain')
        assert kind == 'LlamaForCausalLM'
        assert (found - logits(again)).abs().max() < 1e-6


def test_heads_that_do_not_divide_the_hidden_size(tmp_path):
    """Llama's configuration refuses them, that of Mistral has them."""
    model = language(num_attention_heads=4, num_key_value_heads=4)
    units = {
        'model.embed_tokens': dict(fixed=True),
        '*.self_attn.heads': dict(choices=[3])
    }
    export = exported(
        model, tmp_path / 'subnet', layers='tied', depth=False, units=units)
    told = write_folder(export, tmp_path / 'hf')
    assert told['class'] == 'MistralForCausalLM' and told['alike']
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    assert plain.config.num_attention_heads == 3
    assert plain.config.sliding_window is None
    assert torch.equal(logits(plain), logits(export.model))
    again = language(
        num_attention_heads=4, num_key_value_heads=4, attention_bias=True)
    export = exported(
        again, tmp_path / 'subnet', layers='tied', depth=False, units=units)
    told = write_folder(export, tmp_path / 'hf2')
    assert told['class'] == 'SizedLlamaForCausalLM'


def test_what_cannot_be_written_is_refused(tmp_path):
    model = language()
    with pytest.raises(FamilyError, match='Linear cannot be written'):
        write_folder(torch.nn.Linear(3, 3), tmp_path / 'hf')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='holds something'):
        write_folder(model, tmp_path / 'full')
    assert [f.name for f in (tmp_path / 'full').iterdir()] == ['mine.txt']
    model.model.norm = torch.nn.Identity()  # other code than its family's
    with pytest.raises(FamilyError, match='model.norm.weight'):
        write_folder(model, tmp_path / 'hf')
    assert not (tmp_path / 'hf').exists()


def test_a_number_that_follows_the_hidden_size_is_found_out(tmp_path):
    """Gemma multiplies its embedding by the root of the hidden size."""
    export = exported(
        language('Gemma2'),
        tmp_path / 'subnet',
        depth=False,
        heads=False,
        units={'*.gate_proj': dict(fixed=True)})
    assert export.model.model.embed_tokens.weight.shape[1] < 32
    with pytest.raises(SubnetError, match='Declare the hidden size fixed'):
        write_folder(export, tmp_path / 'hf')
    assert [f.name for f in tmp_path.iterdir()] == ['subnet']


@pytest.mark.parametrize('removed', [(0, ), (0, 1)])
@pytest.mark.parametrize('family', ['Llama', 'Qwen2', 'Gemma3Text'])
def test_generation_in_memory_without_the_first_layers(family, removed):
    """A cache is asked for its length where the first layer writes."""
    settings = dict(num_hidden_layers=5)
    if family == 'Gemma3Text':
        settings.update(
            layer_types=2 * ['sliding_attention', 'full_attention'] +
            ['full_attention'],
            sliding_window=4)
    model = language(family, **settings).double().eval()
    space = trace(model, dict(input_ids=WORDS[:1]), depth=True)
    keep = torch.ones(space.layout.E, dtype=torch.bool)
    stage, = (unit for unit in space.units if unit.kind == 'depth')
    first = space.layout.slice_of(space.layout.index(stage.name)).start
    keep[[first + number for number in removed]] = False
    model = slice_model(model, space, keep)
    words = torch.tensor([[0, 0, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6]])
    mask = (words > 0).long()
    out = generated(model, words, 12, attention_mask=mask)
    assert torch.equal(*out)
    with torch.no_grad():
        before = model(words[:, :4], use_cache=True).past_key_values
        after = model(words[:, 4:], past_key_values=before).logits
        whole = model(words, use_cache=False).logits[:, 4:]
    assert (after - whole).abs().max() < 1e-9 * whole.abs().max()
