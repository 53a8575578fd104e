# Copyright (c) dms_razor contributors. All rights reserved.
"""Experts of one layer in two parameters, run as one operation.

Hugging Face's mixtures of experts hold those of a layer as ``gate_up_proj
[E, 2 I, H]`` and ``down_proj [E, H, I]``. Which of them a word goes through
are numbers that a router finds at run time, and several implementations (a
loop, batched and grouped products) run them. While a network is looked at,
whichever of them runs is one operation, whose rule
(:mod:`dms_razor.tracing.rules.experts`) says what becomes of channels: nothing
follows numbers that depend on data.
"""
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, Optional

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

#: Name of the operation.
OPERATION = 'routed_experts'
#: Parameters: what goes into an expert, and what comes out of it.
FIRST, LAST = 'gate_up_proj', 'down_proj'
#: What transformers says of such modules -> what it is here.
_LAID_OUT = dict(
    has_gate=True,
    is_concatenated=True,
    is_transposed=False,
    has_bias=False,
    has_post_expert_norm=False,
    _is_expert_parallel=False)
#: Numbers of experts, and of their routers, by what they count.
NUMBERS = dict(
    experts=('num_experts', 'num_local_experts', 'n_routed_experts'),
    read=('hidden_dim', 'hidden_size'),
    width=('intermediate_dim', 'intermediate_size', 'moe_intermediate_size'))


def is_experts(module: nn.Module) -> bool:
    """Whether a module is experts in two parameters, told by what it has.

    Biases, weights that lie the other way round and gates that alternate with
    what they scale (GPT-OSS) are other experts.
    """
    if not (hasattr(module, 'has_gate') and hasattr(module, FIRST)):
        return False
    own = dict(module.named_parameters())
    if own.keys() != {FIRST, LAST} or own[LAST].dim() != 3:
        return False
    first, last = own[FIRST], own[LAST]
    number, read, width = last.shape
    return tuple(first.shape) == (number, 2 * width, read) and all(
        getattr(module, name, wanted) is wanted
        for name, wanted in _LAID_OUT.items())


def numbers_of(module: nn.Module, **sizes: int) -> Dict[str, str]:
    """Attributes of experts or of a router -> what they count.

    Args:
        module (nn.Module): The module.
        **sizes: ``experts``, ``read`` and ``width``: how many there are.
    """
    return {
        name: counted
        for counted, size in sizes.items()
        for name in NUMBERS[counted] if vars(module).get(name) == size
    }


def _as_operation(module: nn.Module) -> Callable:
    """The forward of experts, which modes of PyTorch see as one function."""
    forward = module.forward

    def routed_experts(x: Tensor, chosen: Tensor, weights: Tensor,
                       first: Tensor, last: Tensor) -> Tensor:
        given = (x, chosen, weights, first, last)
        if has_torch_function(given):
            return handle_torch_function(routed_experts, given, *given)
        return forward(x, chosen, weights)

    def run(hidden_states: Tensor, top_k_index: Tensor,
            top_k_weights: Tensor) -> Tensor:
        return routed_experts(hidden_states, top_k_index, top_k_weights,
                              getattr(module, FIRST), getattr(module, LAST))

    return run


@contextmanager
def experts_as_operations(model: nn.Module) -> Iterator[None]:
    """Let all experts of a network run as one operation each in the body."""
    before: Dict[nn.Module, Optional[Callable]] = {
        module: vars(module).get('forward')
        for module in model.modules() if is_experts(module)
    }
    try:
        for module in before:
            vars(module)['forward'] = _as_operation(module)
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                vars(module).pop('forward', None)
            else:
                vars(module)['forward'] = forward
