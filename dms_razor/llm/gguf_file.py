# Copyright (c) dms_razor contributors. All rights reserved.
"""A searched language model as a GGUF file, which llama.cpp runs.

Written by the package ``gguf``. Layers that are all alike are a file of the
architecture ``llama``; layers of sizes of their own one of ``deci``, the
architecture of llama.cpp whose heads, heads of keys and feed-forward widths
are lists with a number for each layer, and which computes the same. Both pair
neighbouring dims in their rotary positions, where Hugging Face pairs those of
the two halves of a head, so that rows of queries and keys are put in that
order.
"""
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import SubnetError
from ..masking.layers import MaskedLayer
from ..subnet.export import Export
from .folder import FamilyError, family_of, kept_layers, renumbered, sizes_of
from .vocabulary import write_vocabulary

try:
    import gguf
except ImportError:  # an extra of dms_razor
    gguf = None

#: What llama.cpp computes as it does a Llama, with biases or without.
FAMILIES = ('llama', 'mistral', 'qwen2')
#: Kinds of rotary positions that are the same in every text.
POSITIONS = ('default', 'linear', 'llama3', 'yarn')
#: Names of the types of numbers that can be written.
TYPES = ('f32', 'f16', 'bf16', 'q8_0')


def write_gguf(model: Union[Export, nn.Module],
               file: Union[str, Path],
               tokenizer: Optional[Any] = None,
               dtype: str = 'f16',
               pre: Optional[str] = None) -> Dict[str, Any]:
    """Write a subnet for llama.cpp.

    Smaller types than these are made of the file by ``llama-quantize``, some
    of which want widths that 256 divides.

    Args:
        model (Export | nn.Module): What ``search.export`` returned, or its
            ``model``: of :data:`FAMILIES`.
        file (str | Path): Where to, a new file.
        tokenizer (optional): A fast tokenizer, written into the file. Without
            one, llama.cpp takes and gives numbers of tokens.
        dtype (str): Type of the matrices, of :data:`TYPES`; vectors are
            'f32'. In 'q8_0' a matrix whose rows 32 does not divide is 'f16'.
        pre (str, optional): What llama.cpp calls the way in which a tokenizer
            of bytes splits text, e.g. 'llama-bpe'.

    Returns:
        dict: ``architecture``, ``sizes`` of each layer, ``parameters``,
        ``bytes`` of the file, and ``vocabulary``, 'none' without a tokenizer.

    Raises:
        FamilyError: The network is none that llama.cpp holds in such a file,
            or its tokenizer is none.
        FileExistsError: There is such a file.
        ImportError: The package ``gguf`` is missing.
        SubnetError: What was read again is something else.
    """
    if gguf is None:
        raise ImportError('GGUF files need the package gguf: pip install gguf')
    if dtype not in TYPES:
        raise ValueError(f'dtype={dtype!r}: give one of {", ".join(TYPES)}')
    file = Path(file)
    part = file.with_name(f'.{file.name}.{os.getpid()}.part')
    if file.exists():
        raise FileExistsError(f'{file} is there already: name a new file')
    model = model.model if isinstance(model, Export) else model
    layers = kept_layers(model, _known(model))
    sizes = [sizes_of(model.model.layers[number]) for number in layers]
    alike = all(one == sizes[0] for one in sizes)
    told = dict(
        architecture='llama' if alike else 'deci',
        sizes=sizes,
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary='none')
    tensors = dict(_tensors(model, layers, told['architecture']))
    try:
        told['vocabulary'] = _write(part, model, told, tensors, tokenizer,
                                    dtype, pre)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return dict(told, bytes=file.stat().st_size)


def _write(file: Path, model: nn.Module, told: Dict[str, Any],
           tensors: Dict[str, Tensor], tokenizer: Optional[Any], dtype: str,
           pre: Optional[str]) -> str:
    """Write the file, read it again, and tell its kind of vocabulary."""
    writer = gguf.GGUFWriter(file, told['architecture'])
    _write_numbers(writer, model, told['sizes'])
    vocabulary = write_vocabulary(writer, tokenizer, model.config.vocab_size,
                                  pre)
    kinds = {name: _kind(tensor, dtype) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        array = gguf.quants.quantize(tensor.numpy(), kinds[name])
        if not np.isfinite(gguf.quants.dequantize(array, kinds[name])).all():
            raise SubnetError(
                f'"{name}" has numbers that are not finite or too large for '
                f"{dtype}: write dtype='bf16' or 'f32', if the network's own "
                'are finite')
        writer.add_tensor(name, array, raw_dtype=kinds[name])
    file.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _compare(file, tensors, kinds)
    return vocabulary


def _known(model: nn.Module) -> str:
    """The family of a network that can be written."""
    if any(isinstance(part, MaskedLayer) for part in model.modules()):
        raise FamilyError('this network is being searched: write what '
                          'search.export(...) returns')
    family, config = family_of(model), model.config
    why, positions = None, _positions(config)
    if family not in FAMILIES:
        why = 'its layers have more than those of a Llama'
    elif positions.get('rope_type', 'default') not in POSITIONS:
        why = (f'its rotary positions are "{positions["rope_type"]}", which '
               'change with the length of the text')
    elif getattr(config, 'sliding_window', None) and getattr(
            config, 'use_sliding_window', True):
        why = 'its attention has a sliding window'
    elif config.hidden_act != 'silu':
        why = f'its activation is {config.hidden_act}'
    elif getattr(config, 'mlp_bias', False):
        why = 'its feed-forward networks have biases'
    elif getattr(model.model.rotary_emb, 'attention_scaling', 1.) != 1.:
        why = 'its rotary positions scale the attention (YaRN and others)'
    if why is not None:
        raise FamilyError(
            f'{type(model).__name__} cannot be written as a GGUF file: {why}. '
            f'Written are {", ".join(FAMILIES)}, as llama.cpp computes them. '
            "Its own convert_hf_to_gguf.py may read the folder of "
            "write_folder, where layers are all alike (layers='tied'); that "
            'was not tried')
    return family


def _positions(config: Any) -> Dict[str, Any]:
    """What a configuration says of rotary positions, by version."""
    found = getattr(config, 'rope_parameters', None) or getattr(
        config, 'rope_scaling', None) or {}
    return dict(
        found, rope_type=found.get('rope_type', found.get('type', 'default')))


def _write_numbers(writer: Any, model: nn.Module,
                   sizes: List[Dict[str, int]]) -> None:
    """What llama.cpp has to know of the network."""
    config = model.config
    dims = next(
        layer.self_attn.head_dim for layer in model.model.layers
        if hasattr(layer, 'self_attn'))
    numbers = {name: [one[name] for one in sizes] for name in sizes[0]}
    # Llama's architecture takes a number for all layers, deci's lists.
    one_for_all = writer.arch == 'llama'
    heads, keys, width = (
        values[0] if one_for_all else values
        for values in (numbers['num_attention_heads'],
                       numbers['num_key_value_heads'],
                       numbers['intermediate_size']))
    writer.add_name(getattr(config, 'name_or_path', '') or config.model_type)
    writer.add_block_count(len(sizes))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(model.model.embed_tokens.weight.shape[1])
    writer.add_feed_forward_length(width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_key_length(dims)
    writer.add_value_length(dims)
    writer.add_rope_dimension_count(dims)
    writer.add_rope_freq_base(_base(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _base(config: Any) -> float:
    """The base of the rotary positions, by version of transformers."""
    own = _positions(config)
    return float(own.get('rope_theta', getattr(config, 'rope_theta', 1e4)))


def _tensors(model: nn.Module, layers: List[int],
             architecture: str) -> Iterator[Tuple[str, Tensor]]:
    """Tensors as llama.cpp names and orders them, float32."""
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items()
                if name == architecture)
    names = gguf.get_tensor_name_map(kind, len(layers))
    dims = model.model.layers[layers[0]].self_attn.head_dim
    tied = model.get_output_embeddings() is not None and \
        model.lm_head.weight is model.model.embed_tokens.weight
    for name, tensor in renumbered(model.state_dict(), layers).items():
        if tied and name == 'lm_head.weight':
            continue
        own = names.get_name(name, try_suffixes=('.weight', '.bias'))
        if own is None:
            raise FamilyError(f'"{name}" has no place in a file of the '
                              f'architecture {architecture} of llama.cpp')
        tensor = tensor.float().cpu()
        if name.split('.')[-2] in ('q_proj', 'k_proj'):
            tensor = _interleaved(tensor, dims)
        yield own, tensor.contiguous()
    factors = _frequency_factors(model, dims)
    if factors is not None:
        yield 'rope_freqs.weight', factors


def _interleaved(rows: Tensor, dims: int) -> Tensor:
    """Dims i and i + dims / 2 of each head, which rotate together, as
    neighbours."""
    halves = rows.unflatten(0, (-1, 2, dims // 2))
    return halves.transpose(1, 2).flatten(0, 2)


def _frequency_factors(model: nn.Module, dims: int) -> Optional[Tensor]:
    """By how much each frequency of the positions is divided, None for 1."""
    plain = _base(model.config)**-(torch.arange(0, dims, 2).double() / dims)
    own = model.model.rotary_emb.inv_freq.detach().cpu().double()
    if own.shape != plain.shape:
        raise FamilyError('only some dims of its heads are rotated, which '
                          'llama.cpp does not take for a Llama')
    factors = plain / own
    near = torch.allclose(factors, torch.ones_like(factors), rtol=1e-4)
    return None if near else factors.float()


def _kind(tensor: Tensor, dtype: str) -> Any:
    """Type of a tensor in the file."""
    kinds = gguf.GGMLQuantizationType
    if tensor.dim() == 1:
        return kinds.F32
    if dtype == 'q8_0' and tensor.shape[1] % 32:
        return kinds.F16
    return kinds[dtype.upper()]


def _compare(file: Path, tensors: Dict[str, Tensor], kinds: Dict[str,
                                                                 Any]) -> None:
    """Read a file again and compare what is in it."""
    found = {one.name: one for one in gguf.GGUFReader(file).tensors}
    for name, tensor in tensors.items():
        wanted = gguf.quants.dequantize(
            gguf.quants.quantize(tensor.numpy(), kinds[name]), kinds[name])
        one = found.get(name)
        again = None if one is None else gguf.quants.dequantize(
            one.data, one.tensor_type).reshape(wanted.shape)
        if again is None or not (again == wanted).all():
            raise SubnetError(f'"{name}" is not in {file} as it was written')
