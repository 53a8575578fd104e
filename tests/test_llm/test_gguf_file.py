# Copyright (c) dms_razor contributors. All rights reserved.
"""GGUF files against llama.cpp itself, and against what their reader says.

Where the packages are: gguf, and llama-cpp-python for llama.cpp.
"""
import numpy as np
import pytest
import torch
from hf_nets import exported, language, numbers, tokenizer

from dms_razor import Search
from dms_razor.llm import FamilyError, write_folder, write_gguf
from dms_razor.subnet import SubnetError

transformers = pytest.importorskip('transformers', exc_type=ImportError)
gguf = pytest.importorskip('gguf')

WORDS = [3, 17, 5, 44, 8, 8, 21, 2, 50, 13]
LLAMA3 = dict(
    rope_theta=5e4,
    rope_type='llama3',
    factor=8.,
    low_freq_factor=1.,
    high_freq_factor=4.,
    original_max_position_embeddings=64)


def logits_of_llama_cpp(file):
    llama_cpp = pytest.importorskip('llama_cpp')
    model = llama_cpp.Llama(
        str(file),
        n_ctx=32,
        n_threads=1,
        logits_all=True,
        verbose=False,
        type_k=0,  # float32
        type_v=0)
    model.eval(WORDS)
    return torch.tensor(np.array(model.scores[:len(WORDS)]))


@pytest.mark.parametrize('family, settings', [
    ('Llama', dict()),
    ('Llama', dict(rope_parameters=LLAMA3, max_position_embeddings=512)),
    ('Llama', dict(attention_bias=True, tie_word_embeddings=True)),
    ('Mistral', dict(sliding_window=None)),
    ('Qwen2', dict()),
])
@pytest.mark.parametrize('layers', ['free', 'tied'])
def test_llama_cpp_computes_the_same(tmp_path, family, settings, layers):
    model = exported(
        language(family, **settings),
        tmp_path / 'subnet',
        '60%',
        layers=layers).model
    with torch.no_grad():  # attention is to look at single words
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    told = write_gguf(model, tmp_path / 'net.gguf', dtype='f32')
    assert layers == 'free' or told['architecture'] == 'llama'
    found = logits_of_llama_cpp(tmp_path / 'net.gguf')
    with torch.no_grad():
        expected = model(torch.tensor([WORDS])).logits[0]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (expected[1:] - expected[:-1]).abs().max() > .1


def test_layers_of_own_sizes_are_lists(tmp_path):
    model = exported(language(), tmp_path / 'subnet', '60%').model
    told = write_gguf(model, tmp_path / 'net.gguf')
    found = numbers(tmp_path / 'net.gguf')
    assert found['general.architecture'] == told['architecture'] == 'deci'
    for name, own in (('attention.head_count', 'num_attention_heads'),
                      ('attention.head_count_kv', 'num_key_value_heads'),
                      ('feed_forward_length', 'intermediate_size')):
        assert found[f'deci.{name}'] == [one[own] for one in told['sizes']]
    assert found['deci.rope.dimension_count'] == 8
    assert told['bytes'] == (tmp_path / 'net.gguf').stat().st_size
    kept = {
        one.name: one.tensor_type.name
        for one in gguf.GGUFReader(tmp_path / 'net.gguf').tensors
    }
    assert kept['blk.0.attn_q.weight'] == 'F16'
    assert kept['blk.0.attn_norm.weight'] == 'F32'


def test_transformers_reads_layers_that_are_alike(tmp_path):
    model = language(tie_word_embeddings=True)
    write_gguf(model, tmp_path / 'net.gguf', tokenizer(), dtype='f32')
    again = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path, gguf_file='net.gguf', dtype=torch.float32)
    words = torch.tensor([WORDS])
    with torch.no_grad():
        torch.testing.assert_close(
            again.eval()(words).logits, model(words).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype, error', [('f16', 1e-3), ('bf16', 8e-3),
                                          ('q8_0', 1e-2)])
def test_types_of_numbers(tmp_path, dtype, error):
    model = language()
    write_gguf(model, tmp_path / 'net.gguf', dtype=dtype)
    one = next(
        x for x in gguf.GGUFReader(tmp_path / 'net.gguf').tensors
        if x.name == 'blk.1.ffn_up.weight')
    assert one.tensor_type.name == dtype.upper()
    wanted = model.model.layers[1].mlp.up_proj.weight.detach()
    found = torch.tensor(gguf.quants.dequantize(one.data, one.tensor_type))
    assert 0 < (found - wanted).abs().max() < error * wanted.abs().max()


@pytest.mark.parametrize('family, settings, message', [
    ('Qwen3', dict(), 'more than those of a Llama'),
    ('Mistral', dict(sliding_window=4), 'sliding window'),
    ('Llama', dict(hidden_act='gelu'), 'activation is gelu'),
    ('Llama', dict(mlp_bias=True), 'feed-forward networks have biases'),
    ('Llama',
     dict(
         rope_parameters=dict(rope_theta=1e4, rope_type='dynamic', factor=2.)),
     '"dynamic"'),
])
def test_what_llama_cpp_would_compute_otherwise(tmp_path, family, settings,
                                                message):
    with pytest.raises(FamilyError, match=message):
        write_gguf(language(family, **settings), tmp_path / 'net.gguf')
    assert not list(tmp_path.iterdir())


def test_bad_arguments(tmp_path, monkeypatch):
    model, file = language(), tmp_path / 'net.gguf'
    with pytest.raises(ValueError, match="dtype='q4'"):
        write_gguf(model, file, dtype='q4')
    with pytest.raises(FamilyError, match='kind WordLevel'):
        write_gguf(model, file, word_level())
    monkeypatch.setattr(gguf.GGUFWriter, 'write_tensors_to_file',
                        lambda self: None)
    with pytest.raises((SubnetError, ValueError, IndexError)):
        write_gguf(model, file)
    assert not list(tmp_path.iterdir()), 'nothing half-written'
    file.write_text('of somebody')
    with pytest.raises(FileExistsError):
        write_gguf(model, file)
    assert file.read_text() == 'of somebody'


def test_a_network_that_is_being_searched(tmp_path):
    model = language()
    Search(model, dict(input_ids=torch.tensor([WORDS])), '60%', total_steps=9)
    with pytest.raises(FamilyError, match='is being searched'):
        write_gguf(model, tmp_path / 'net.gguf')


@pytest.mark.parametrize('number', [7e4, float('nan')])
def test_what_a_type_cannot_hold(tmp_path, number):
    model = language()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = number
    with pytest.raises(SubnetError, match='blk.1.ffn_up.weight" has numbers'):
        write_gguf(model, tmp_path / 'deep' / 'net.gguf')
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_is_left_alone(tmp_path):
    other = tmp_path / 'net.gguf.part'
    other.write_text('of somebody')
    write_gguf(language(), tmp_path / 'net.gguf')
    assert other.read_text() == 'of somebody'
    assert sorted(
        p.name for p in tmp_path.iterdir()) == ['net.gguf', 'net.gguf.part']


def word_level():
    from tokenizers import Tokenizer, models
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({'a': 0}, unk_token='a')))


def test_the_folder_of_it_too(tmp_path):
    """The same subnet as a folder and as a file."""
    export = exported(language(), tmp_path / 'subnet', '60%')
    sizes = write_folder(export, tmp_path / 'folder')['sizes']
    assert write_gguf(export, tmp_path / 'net.gguf')['sizes'] == sizes
