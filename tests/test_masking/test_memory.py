# Copyright (c) dms_razor contributors. All rights reserved.
"""What is to see each operation sees it; what has no memory is known."""
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dms_razor.masking.memory import in_memory, recorded


def seen_by(how):
    """What is said of a function that runs so."""
    found = []

    def run(x):
        found.append(recorded())
        return x * 2

    x = torch.ones(3)
    if how == 'trace':
        torch.jit.trace(run, x, check_trace=False)
    elif how == 'vmap':
        torch.func.vmap(run)(x)
    elif how == 'grad':
        torch.func.grad(lambda x: run(x).sum())(x)
    elif how == 'counter':
        with FlopCounterMode(display=False):
            run(x)
    else:
        with TorchDispatchMode() if how == 'mode' else torch.no_grad():
            # A mode of nobody's refuses operations: only the question runs.
            found.append(recorded())
    return found[0]


@pytest.mark.parametrize('how', ('trace', 'vmap', 'grad', 'counter', 'mode'))
def test_what_records(how):
    assert seen_by(how)
    assert not recorded()


def test_what_does_not():
    assert not seen_by('nothing')
    with torch.autocast('cpu', torch.bfloat16), \
            torch.autograd.graph.save_on_cpu():
        assert not recorded()


def test_a_compiled_function_is_one_graph():
    """A mode cannot be asked for while torch.compile reads."""
    compiled = torch.compile(
        lambda x: x * 2 if recorded() else x * 3,
        backend='eager',
        fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [2, 2]


def test_what_is_in_memory():
    """Only that can be handed to a kernel."""

    class Own(torch.Tensor):
        pass

    x = torch.ones(2, 3)
    assert in_memory(x, None, torch.nn.Parameter(x), x.T, x.half())
    found = []
    torch.func.vmap(lambda row: found.append(in_memory(row)) or row)(x)
    assert found == [False]
    for other in (torch._efficientzerotensor(3), torch._neg_view(x),
                  x.as_subclass(Own), x.to_sparse()):
        assert not in_memory(x, other)
