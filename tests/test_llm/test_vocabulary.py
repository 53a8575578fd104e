# Copyright (c) dms_razor contributors. All rights reserved.
"""Tokenizers in GGUF files, against what was put in and llama.cpp's own."""
import pytest
from hf_nets import language, numbers, tokenizer

from dms_razor.llm import FamilyError, write_gguf

pytest.importorskip('gguf')


def test_a_tokenizer_of_pieces(tmp_path):
    """Scores follow the order of the joins; each kind of token is told."""
    told = write_gguf(language(), tmp_path / 'net.gguf', tokenizer())
    found = numbers(tmp_path / 'net.gguf')
    assert told['vocabulary'] == 'spm'
    start = 'tokenizer.ggml.'
    assert found[f'{start}model'] == 'llama'
    tokens = found[f'{start}tokens']
    assert len(tokens) == 53 and tokens[7:12] == [
        'bc', 'ab', 'abc', '<0x0A>', '<0x64>'
    ]
    scores = dict(zip(tokens, found[f'{start}scores']))
    assert scores['ab'] > scores['abc'] > scores['bc'] > scores['a']
    kinds = found[f'{start}token_type']
    assert kinds[:4] == [2, 3, 3, 1] and kinds[10] == 6 and kinds[52] == 5
    assert (found[f'{start}bos_token_id'], found[f'{start}eos_token_id']) == \
        (1, 2)
    assert found[f'{start}add_space_prefix'] is True
    assert found[f'{start}add_bos_token'] is False


def test_llama_cpp_cuts_text_alike(tmp_path):
    llama_cpp = pytest.importorskip('llama_cpp')
    words = tokenizer()
    write_gguf(language(), tmp_path / 'net.gguf', words)
    model = llama_cpp.Llama(
        str(tmp_path / 'net.gguf'), vocab_only=True, verbose=False)
    for text in ('abc', 'bc ab', 'abcab cd'):
        found = model.tokenize(text.encode(), add_bos=False)
        assert found == words(text).input_ids, text


def test_a_tokenizer_of_bytes(tmp_path):
    words = tokenizer(byte_level=True)
    with pytest.raises(FamilyError, match="give its name for that as pre"):
        write_gguf(language(), tmp_path / 'net.gguf', words)
    assert not list(tmp_path.iterdir())
    told = write_gguf(language(), tmp_path / 'net.gguf', words, pre='gpt-2')
    found = numbers(tmp_path / 'net.gguf')
    assert told['vocabulary'] == 'bpe'
    assert found['tokenizer.ggml.model'] == 'gpt2'
    assert found['tokenizer.ggml.pre'] == 'gpt-2'
    assert found['tokenizer.ggml.merges'] == ['a b', 'ab c', 'b c']


def test_a_tokenizer_of_another_network(tmp_path):
    words = tokenizer()
    words.add_tokens([f'w{n}' for n in range(60)])
    with pytest.raises(FamilyError, match='the network knows 53'):
        write_gguf(language(), tmp_path / 'net.gguf', words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('scheme, space', [('never', False), ('first', True),
                                           ('always', True)])
def test_whether_text_begins_with_a_space(tmp_path, scheme, space):
    from tokenizers import normalizers, pre_tokenizers
    words = tokenizer()
    words.backend_tokenizer.normalizer = normalizers.NFC()
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme=scheme)
    write_gguf(language(), tmp_path / 'net.gguf', words)
    found = numbers(tmp_path / 'net.gguf')
    assert found['tokenizer.ggml.add_space_prefix'] is space
