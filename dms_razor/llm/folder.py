# Copyright (c) dms_razor contributors. All rights reserved.
"""A searched language model as a folder that Hugging Face loads.

Layers that are all alike make a plain model of the family, if that takes their
numbers, which needs no code of ours. That of Llama wants a hidden size that
its heads divide; where they do not, a plain Mistral is written, which is the
same network without that wish. Layers of sizes of their own make one of
:mod:`dms_razor.llm.modeling`, which ``import dms_razor.llm`` registers;
``code=True`` puts that file into the folder instead, for
``trust_remote_code=True``. Removed layers are gone, the others are numbered
anew.
"""
import copy
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..errors import SubnetError
from ..subnet.export import Export
from . import modeling
from .modeling import FAMILIES, SIZED, transformers

CODE = 'modeling_sized.py'


class FamilyError(ValueError):
    """A network that cannot be written as a folder of Hugging Face."""


def register() -> None:
    """Let transformers' Auto classes know models of layers of own sizes."""
    for config, model in SIZED.values():
        transformers.AutoConfig.register(
            config.model_type, config, exist_ok=True)
        transformers.AutoModelForCausalLM.register(
            config, model, exist_ok=True)


def write_folder(model: Union[Export, nn.Module],
                 folder: Union[str, Path],
                 tokenizer: Optional[Any] = None,
                 code: bool = False,
                 check: bool = True) -> Dict[str, Any]:
    """Write a subnet for ``AutoModelForCausalLM.from_pretrained``.

    Args:
        model (Export | nn.Module): What ``search.export`` returned, or its
            ``model``: a causal language model of :data:`.modeling.FAMILIES`.
        folder (str | Path): Where to: a new or an empty folder.
        tokenizer (optional): Written beside it.
        code (bool): Whether layers of own sizes bring their code along, for
            a machine without dms_razor. Defaults to False.
        check (bool): Whether the folder is loaded again and its logits are
            compared. Defaults to True.

    Returns:
        dict: ``sizes`` of each layer, ``alike``, ``parameters``, ``class``,
        and ``difference`` of the logits where they were compared.

    Raises:
        FamilyError: The network is of another family, or was cut in a way
            that its configuration cannot say.
        FileExistsError: The folder holds something.
        SubnetError: What was loaded again computes something else.
    """
    model = model.model if isinstance(model, Export) else model
    layers = kept_layers(model, family_of(model))
    sizes = [sizes_of(model.model.layers[number]) for number in layers]
    kind, config = _settings(model, layers, sizes, code)
    with torch.device('meta'):
        target = kind(copy.deepcopy(config))
    state = renumbered(model.state_dict(), layers)
    _check_shapes(target.state_dict(), state)
    target.generation_config = getattr(model, 'generation_config', None)
    told = {
        'sizes': sizes,
        'alike': _alike(sizes),
        'parameters': sum(p.numel() for p in model.parameters()),
        'class': kind.__name__,
    }
    with _new(Path(folder)) as part:
        target.save_pretrained(part, state_dict=state)
        config.save_pretrained(part)
        if hasattr(config, 'auto_map'):
            shutil.copy(modeling.__file__, part / CODE)
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        if check:
            told['difference'] = _compare(model, kind, part)
    return told


def _settings(model: nn.Module, layers: List[int], sizes: List[Dict[str, int]],
              code: bool) -> Tuple[type, Any]:
    """Class and configuration: the family's own where they can say it."""
    family = model.config.model_type
    config = _config(model, layers, sizes)
    kind = getattr(transformers, FAMILIES[family][1])
    alike = _alike(sizes)
    if alike and family == 'llama' and not _is_valid(config):
        kind, config = _as_mistral(kind, config)
    if not alike or not _is_valid(config):
        config_class, kind = SIZED[family]
        settings = config.to_dict()
        settings.pop('model_type', None)
        config = config_class(**settings)
        config.layer_sizes = sizes
        if code:
            stem = CODE.partition('.')[0]
            config.auto_map = {
                'AutoConfig': f'{stem}.{config_class.__name__}',
                'AutoModelForCausalLM': f'{stem}.{kind.__name__}'
            }
    config.architectures = [kind.__name__]
    return kind, config


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder that appears whole, or not at all."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f'{folder} holds something already: name a new '
                              'folder, or empty it')
    part = folder.with_name(f'.{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            folder.rmdir()
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def family_of(model: nn.Module) -> str:
    """The model_type of a network that can be written."""
    if transformers is None:
        raise ImportError('language models need the package transformers: '
                          'pip install dms_razor[llm]')
    family = getattr(getattr(model, 'config', None), 'model_type', None)
    known = family in SIZED and isinstance(
        model, getattr(transformers, FAMILIES[family][1]))
    if not known:
        raise FamilyError(
            f'{type(model).__name__} cannot be written as a folder of Hugging '
            f'Face: only {", ".join(names[1] for names in FAMILIES.values())} '
            'can. search.export() writes any network, for build_subnet')
    return family


def kept_layers(model: nn.Module, family: str) -> List[int]:
    """Numbers of the layers that stay."""
    found = []
    for number, layer in enumerate(model.model.layers):
        if not hasattr(layer, 'self_attn'):
            continue  # a removed block
        parts = [layer.self_attn, layer.mlp]
        if any(next(part.parameters(), None) is None for part in parts):
            raise FamilyError(
                f'layer {number} has lost its attention or its feed-forward '
                'network alone, which no configuration can say: search depth '
                'by whole layers')
        found.append(number)
    if not found:
        raise FamilyError(f'no layer of this {family} is left')
    return found


def sizes_of(layer: nn.Module) -> Dict[str, int]:
    """What the configuration calls the sizes of a layer."""
    attention = layer.self_attn
    rows = {
        'num_attention_heads': attention.q_proj.weight.shape[0],
        'num_key_value_heads': attention.k_proj.weight.shape[0]
    }
    for name, size in rows.items():
        if size % attention.head_dim:
            raise FamilyError(f'{size} rows of queries or keys are no whole '
                              f'heads of {attention.head_dim} dims')
    sizes = {name: n // attention.head_dim for name, n in rows.items()}
    if not hasattr(layer.mlp, 'experts'):
        return dict(
            sizes, intermediate_size=layer.mlp.gate_proj.weight.shape[0])
    return dict(sizes, **_sizes_of_experts(layer.mlp))


def _sizes_of_experts(block: nn.Module) -> Dict[str, int]:
    """The same of a layer's mixture of experts."""
    number, _, width = block.experts.down_proj.shape
    config = block.experts.config
    names = ('intermediate_size', 'num_local_experts') if \
        config.model_type == 'mixtral' else ('moe_intermediate_size',
                                             'num_experts')
    sizes = dict(zip(names, (width, number)))
    if hasattr(block, 'shared_expert'):
        sizes['shared_expert_intermediate_size'] = len(
            block.shared_expert.gate_proj.weight)
    return sizes


def _alike(sizes: List[Dict[str, int]]) -> bool:
    """Whether one number of each name is that of all layers that have it.

    Of layers with and without experts each kind has names of its own.
    """
    return len({item
                for one in sizes
                for item in one.items()}) == len({n
                                                  for x in sizes
                                                  for n in x})


def _config(model: nn.Module, layers: List[int],
            sizes: List[Dict[str, int]]) -> Any:
    """The configuration, with the first size of each name for all layers."""
    config = copy.deepcopy(model.config)
    if hasattr(config, 'mlp_only_layers'):  # by number, and by every so many
        config.mlp_only_layers = [
            new for new, one in enumerate(sizes) if 'intermediate_size' in one
        ]
        config.decoder_sparse_step = 1
    config.head_dim = model.model.layers[layers[0]].self_attn.head_dim
    config.hidden_size = model.model.embed_tokens.weight.shape[1]
    config.num_hidden_layers = len(layers)
    if getattr(config, 'layer_types', None):
        config.layer_types = [config.layer_types[n] for n in layers]
    for one in reversed(sizes):
        for name, size in one.items():
            setattr(config, name, size)
    return config


def _is_valid(config: Any) -> bool:
    """Whether the family takes its own configuration: that of Llama wants a
    hidden size that its heads divide."""
    try:
        getattr(config, 'validate', lambda: None)()
    except Exception:  # of the package that checks it, by version
        return False
    return True


def _as_mistral(kind: type, config: Any) -> Tuple[type, Any]:
    """A Llama's configuration as that of a Mistral, if it is one."""
    biases = getattr(config, 'attention_bias',
                     False), getattr(config, 'mlp_bias', False)
    if any(biases) or not hasattr(transformers, 'MistralConfig'):
        return kind, config
    numbers = config.to_dict()
    for name in ('model_type', 'architectures', 'attention_bias', 'mlp_bias',
                 'pretraining_tp'):
        numbers.pop(name, None)
    return transformers.MistralForCausalLM, transformers.MistralConfig(
        **numbers, sliding_window=None)


def renumbered(state: Dict[str, Tensor],
               layers: List[int]) -> Dict[str, Tensor]:
    """A state dict whose layers are counted from 0."""
    places, result = {old: new for new, old in enumerate(layers)}, {}
    for name, tensor in state.items():
        parts = name.split('.')
        if parts[:2] == ['model', 'layers']:
            if int(parts[2]) not in places:
                continue
            parts[2] = str(places[int(parts[2])])
        result['.'.join(parts)] = tensor.detach()
    return result


def _check_shapes(expected: Dict[str, Tensor], found: Dict[str,
                                                           Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found or found[name].shape != tensor.shape:
            shape = tuple(found[name].shape) if name in found else 'missing'
            raise FamilyError(
                f'"{name}" is {shape}, its configuration says '
                f'{tuple(tensor.shape)}: this width cannot be written. '
                'Declare it fixed in the search')


@torch.no_grad()
def _compare(model: nn.Module, kind: type, folder: Path) -> float:
    """Largest difference of logits over the largest, loaded again."""
    again = kind.from_pretrained(folder, dtype=torch.float32)
    device = next(model.parameters()).device
    words = torch.arange(8, device=device)[None] % model.config.vocab_size
    training = model.training
    expected = model.eval()(words, use_cache=False).logits.float().cpu()
    model.train(training)
    found = again.eval()(words.cpu(), use_cache=False).logits
    difference = float((expected - found).abs().max() / expected.abs().max())
    low = next(model.parameters()).dtype != torch.float32
    if not difference < (5e-2 if low else 1e-5):
        raise SubnetError(
            'the model that was written and loaded again computes '
            f'something else (logits differ by {difference:.1e}): a number of '
            'its code follows from a width that was pruned. Declare the '
            'hidden size fixed, fixed=["model.embed_tokens"], or report it')
    return difference
