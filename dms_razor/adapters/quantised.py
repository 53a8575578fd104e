# Copyright (c) dms_razor contributors. All rights reserved.
"""Linear layers that hold their weights in few bits, as bitsandbytes does.

They are known by what they are: an ``nn.Linear`` of ``[out_features,
in_features]`` whose weight is kept as other numbers than those. What those
stand for is asked of the layer itself, which is run on unit vectors.
"""
import copy
import sys
from typing import Optional, Set

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Unit vectors that a layer is run on at once.
ROWS = 256
#: How far a layer may be from the product that it stands for: some round
#: their inputs to 8 bits.
ROUNDING = .05
#: What a 4-bit layer of bitsandbytes asks before it packs its weight anew.
PACKS = 'support_avx512bf16_for_cpu'
#: What transformers notes in a network that it has loaded quantised.
NOTES = ('hf_quantizer', 'quantization_method', 'quantization_config',
         'is_quantized', '_is_quantized', 'is_loaded_in_4bit',
         'is_loaded_in_8bit')


def is_quantised(module: nn.Module) -> bool:
    """Whether a module's own weights are packed, or whole numbers.

    Of bitsandbytes a parameter; of GPTQ and AWQ the buffer ``qweight``.
    """
    own = [
        *(x for _, x in module.named_parameters(recurse=False)),
        *(x for name, x in module.named_buffers(recurse=False)
          if name == 'qweight')
    ]
    return any(map(_is_whole, own)) or is_quantised_linear(module)


def is_quantised_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer that reads a packed weight.

    4-bit numbers may lie in memory of a floating-point type, too: their
    parameter is of a class of its own then, and of another size.
    """
    if not isinstance(module, nn.Linear) or \
            type(module).forward is nn.Linear.forward:
        return False
    weight = module._parameters.get('weight')
    if weight is None:
        return False
    return _is_whole(weight) or (type(weight) is not nn.Parameter
                                 and weight.numel()
                                 != module.in_features * module.out_features)


def packed_weights(network: nn.Module) -> Set[int]:
    """``id`` of the parameters that hold the packed weights of a network.

    None is to be shared with a copy, nor made again of its data: what it
    takes to read it lies beside it, and goes from it to its layer.
    """
    return {
        id(layer._parameters['weight'])
        for layer in network.modules() if is_quantised_linear(layer)
    }


def _is_whole(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex())


def hold_packing(layer: nn.Module) -> None:
    """Let a quantised layer stay as it is where it runs without gradients.

    On a CPU with bfloat16, bitsandbytes packs the weights of a 4-bit layer
    anew when it is evaluated, for a product that has no gradient: what comes
    before the layer would learn nothing from then on.
    """
    if layer.__dict__.get(PACKS):
        layer.state_dict()  # its own way to undo it
        setattr(layer, PACKS, False)
        object.__setattr__(layer, '_dms_packs', True)


def release_packing(layer: nn.Module) -> None:
    """Undo :func:`hold_packing`."""
    if layer.__dict__.pop('_dms_packs', False):
        setattr(layer, PACKS, True)


@torch.no_grad()
def weight_of_units(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """The weight ``[out_features, in_features]`` that a layer multiplies by.

    Args:
        layer (nn.Module): A quantised linear layer, without masks.
        dtype (torch.dtype): Of what it is called with.

    Raises:
        ValueError: It computes something else than the product of a weight.
    """
    hold_packing(layer)
    bias, training = layer._parameters['bias'], layer.training
    device, size = layer._parameters['weight'].device, layer.in_features
    weight = torch.empty(layer.out_features, size, dtype=dtype, device=device)
    x = torch.linspace(-1, 1, 3 * size).mul(7).sin().view(3, -1).to(weight)
    try:
        # Inputs are not rounded to 8 bits in training on a CPU.
        layer._parameters['bias'], layer.training = None, True
        for first in range(0, size, ROWS):
            unit = weight.new_zeros(min(ROWS, size - first), size)
            unit[:, first:].fill_diagonal_(1)
            weight[:, first:first + ROWS] = layer.forward(unit).T
        found, expected = layer.forward(x), F.linear(x, weight)
    finally:
        layer._parameters['bias'], layer.training = bias, training
    if not (found - expected).abs().max() <= ROUNDING * expected.abs().max():
        raise ValueError('it does not compute the product of one weight with '
                         f'numbers of {dtype}')
    return weight


def dequantise(network: nn.Module) -> nn.Module:
    """Put ordinary linear layers in the place of quantised ones, in place.

    Each weight is what the quantised layer multiplies by, in the type of the
    network's other parameters. Adapters of PEFT around a layer stay, and are
    merged in floating point then: ``merge_and_unload()``.

    Args:
        network (nn.Module): The network, without masks; changed where it
            holds quantised layers.

    Returns:
        nn.Module: The same network; of a layer alone another one.

    Raises:
        ValueError: A layer computes no product of one weight; it is named.
    """
    dtype, made = _float_type(network), {}
    for path, layer in list(network.named_modules(remove_duplicate=False)):
        if not is_quantised_linear(layer):
            continue
        if id(layer) not in made:
            made[id(layer)] = layer, _ordinary(path, layer, dtype)
        if not path:
            return made[id(layer)][1]
        parent, _, name = path.rpartition('.')
        holder = network.get_submodule(parent)
        holder._modules[name] = made[id(layer)][1]
        _plain_adapter(holder)
    for module in network.modules() if made else ():
        for owner in (module, getattr(module, 'config', None)):
            for name in NOTES:
                getattr(owner, '__dict__', {}).pop(name, None)
    return network


def _ordinary(path: str, layer: nn.Module, dtype: torch.dtype) -> nn.Linear:
    """The linear layer that a quantised one stands for, with its bias, mode
    and hooks."""
    try:
        weight = weight_of_units(layer, dtype)
    except Exception as error:  # of the package that runs it
        raise ValueError(
            f'the quantised weight of "{path}" ({type(layer).__name__}) '
            f'cannot be read: {error}. Run the network in a type that its '
            'layers take, such as torch.float32 or torch.bfloat16, or search '
            'it in floating point') from error
    made = nn.Linear(1, 1, bias=False).train(layer.training)
    made.in_features, made.out_features = layer.in_features, layer.out_features
    made.weight = nn.Parameter(weight, requires_grad=False)
    bias: Optional[nn.Parameter] = layer._parameters['bias']
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to(dtype), bias.requires_grad)
    for name, value in vars(layer).items():
        if name.startswith('_forward_') and '_hooks' in name:
            vars(made)[name] = copy.copy(value)
    return made


def _float_type(network: nn.Module) -> torch.dtype:
    """What layers are called with: the type of the others' parameters."""
    packed = packed_weights(network)
    return next((p.dtype for p in network.parameters()
                 if p.is_floating_point() and id(p) not in packed),
                torch.float32)


def _plain_adapter(holder: nn.Module) -> None:
    """PEFT has other classes around quantised layers, which merge what they
    add into packed numbers; the usual one has the same parts."""
    kind = type(holder)
    if kind.__module__ == 'peft.tuners.lora.bnb':
        holder.__class__ = sys.modules['peft.tuners.lora.layer'].Linear
        holder.is_target_conv_1d_layer = False
