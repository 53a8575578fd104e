# Copyright (c) dms_razor contributors. All rights reserved.
"""A tokenizer of Hugging Face in a GGUF file.

llama.cpp has its own code for tokenizers. Of pieces that fall back to bytes
(Llama 2, Mistral) it joins, of all neighbours that make a piece of the
vocabulary, those with the highest score, so that a piece scores the better
the earlier it is joined. Of bytes (Llama 3, Qwen) it takes the list of joins
as it is, and has to be told by name how text is split before.
"""
import json
from typing import Any, Dict, List, Optional, Tuple

from .folder import FamilyError

try:
    import gguf
except ImportError:  # an extra of dms_razor
    gguf = None

_LAST = -1e6  # score of what no join is listed for


def write_vocabulary(writer: Any, tokenizer: Optional[Any], size: int,
                     pre: Optional[str]) -> str:
    """Write a tokenizer.

    Args:
        writer (gguf.GGUFWriter): Writes the file.
        tokenizer (optional): A fast tokenizer, None for none.
        size (int): How many tokens the network knows.
        pre (str, optional): See :func:`.gguf_file.write_gguf`.

    Returns:
        str: 'spm' for pieces, 'bpe' for bytes, 'none'.

    Raises:
        FamilyError: llama.cpp has no such tokenizer, or ``pre`` is missing.
    """
    if tokenizer is None:
        writer.add_tokenizer_model('none')
        return 'none'
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    if backend is None:
        raise FamilyError(
            f'{type(tokenizer).__name__} is not a fast tokenizer; give the '
            'one that AutoTokenizer.from_pretrained(...) makes')
    parts = json.loads(backend.to_str())
    model, text = parts['model'], json.dumps(parts)
    in_bytes = '"ByteLevel"' in text
    if model.get('type') != 'BPE' or not (in_bytes
                                          or model.get('byte_fallback')):
        raise FamilyError(
            f'a tokenizer of kind {model.get("type")} cannot be put into a '
            'GGUF file: only byte pair encodings can, of bytes or with a '
            'fallback to bytes. Leave tokenizer out, for a network of numbers')
    if in_bytes and pre is None:
        raise FamilyError(
            'llama.cpp has to know how a tokenizer of bytes splits text: give '
            "its name for that as pre, e.g. 'llama-bpe' (Llama 3) or 'qwen2'")
    tokens, types = _tokens(parts, size)
    writer.add_tokenizer_model('gpt2' if in_bytes else 'llama')
    writer.add_tokenizer_pre(pre if in_bytes else 'default')
    writer.add_token_list(tokens)
    joins = [
        one.split(' ') if isinstance(one, str) else one
        for one in model['merges']
    ]
    if in_bytes:
        writer.add_token_merges([' '.join(one) for one in joins])
    else:
        writer.add_token_scores(_scores(tokens, joins))
        writer.add_add_space_prefix(
            '"Prepend"' in text or any(f'"prepend_scheme": "{when}"' in text
                                       for when in ('first', 'always')))
    writer.add_token_types(types)
    _write_special(writer, tokenizer)
    return 'bpe' if in_bytes else 'spm'


def _tokens(parts: Dict[str, Any], size: int) -> Tuple[List[str], List[int]]:
    """Tokens by number, and what each of them is."""
    kinds, unknown = gguf.TokenType, parts['model'].get('unk_token')
    most = max([
        *parts['model']['vocab'].values(),
        *(added['id'] for added in parts['added_tokens'])
    ])
    if most >= size:
        raise FamilyError(
            f'the tokenizer has a token of number {most}, the network knows '
            f'{size}: give the tokenizer of this network, or resize its '
            'embedding (model.resize_token_embeddings)')
    tokens = [f'[UNUSED{n}]' for n in range(size)]
    types = [int(kinds.UNUSED)] * size
    for token, number in parts['model']['vocab'].items():
        is_byte = len(token) == 6 and token.startswith('<0x')
        tokens[number] = token
        types[number] = int(kinds.UNKNOWN if token == unknown else kinds.
                            BYTE if is_byte else kinds.NORMAL)
    for added in parts['added_tokens']:
        number, token = added['id'], added['content']
        tokens[number] = token
        if token != unknown:
            types[number] = int(
                kinds.CONTROL if added['special'] else kinds.USER_DEFINED)
    return tokens, types


def _scores(tokens: List[str], joins: List[List[str]]) -> List[float]:
    """A score of each token, the higher the earlier it is joined."""
    first: Dict[str, int] = {}
    for place, pair in enumerate(joins):
        first.setdefault(''.join(pair), place)
    return [-float(first[t]) if t in first else _LAST for t in tokens]


def _write_special(writer: Any, tokenizer: Any) -> None:
    for name in ('bos', 'eos', 'unk', 'pad'):
        number = getattr(tokenizer, f'{name}_token_id', None)
        if number is not None:
            getattr(writer, f'add_{name}_token_id')(number)
    words = tokenizer('a').input_ids
    for name, place in (('bos', 0), ('eos', -1)):
        number = getattr(tokenizer, f'{name}_token_id', None)
        getattr(writer, f'add_add_{name}_token')(
            number is not None and bool(words) and words[place] == number)
    template = getattr(tokenizer, 'chat_template', None)
    if isinstance(template, str):
        writer.add_chat_template(template)
