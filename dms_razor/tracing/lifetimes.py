# Copyright (c) dms_razor contributors. All rights reserved.
"""When a network's activations are in memory, and which channels they hold.

The recorder holds every tensor, so that nothing dies while it records. So the
network runs once more, and each operation is asked which storages are there:
those that it makes, and those that the code still holds for later. What they
hold is known from the record of the same operation. Weights, buffers and the
inputs are no activations. What an operation uses inside itself is not seen,
but for attention, whose insides are counted from their sizes.
"""
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice, product
from math import prod
from typing import (Any, Callable, Dict, List, NamedTuple, Optional, Set,
                    Tuple, Union)

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ..adapters.experts import experts_as_operations
from ..network import tensors_of, untouched

_CHOICES = 64  # of blocks in one moment, more than networks have


class Output(NamedTuple):
    """A tensor that an operation returned.

    Attributes:
        shape (tuple[int]): Its shape.
        labels (Tensor, optional): What is in it, None for a constant.
        node (int, optional): The node of the record that it is from.
    """
    shape: Tuple[int, ...]
    labels: Optional[Tensor]
    node: Optional[int]


class Noted(NamedTuple):
    """One call of a PyTorch function: in which module, and what came out.

    Of attention also what went in: queries, keys and values, or
    what :func:`_multihead` tells of a whole one.
    """
    path: str
    outputs: List[Output]
    heads: Optional[List[Output]] = None
    whole: Optional[Dict[str, int]] = None


@dataclass
class Storage:
    """Memory that an operation took for what it returned.

    Attributes:
        path (str): Path of the module that was running.
        labels (Tensor | str, optional): What is in it, None for a constant;
            or which of the labels of the module's
            :class:`~dms_razor.tracing.facts.Heads`.
        size (int): In bytes.
        unlike (Tensor | str, optional): What is in another tensor; the
            storage is taken only where the two have other dims, see
            :func:`_padded`.
        inner (bool): Whether it comes and goes within one operation.
    """
    path: str
    labels: Union[None, str, Tensor]
    size: int
    unlike: Union[None, str, Tensor] = None
    inner: bool = False


@dataclass
class Moment:
    """An operation: in which module, and which storages were there."""
    path: str
    live: Set[int] = field(default_factory=set)


class Lifetimes:
    """Storages of one forward pass, and the moments at which they live.

    Args:
        recorder (Recorder): About to record the pass.

    Attributes:
        storages (list[Storage]): In the order in which they were taken.
        moments (list[Moment]): Those at which others could not be fuller.
        passes (dict[str, tuple[int, int]]): What a module reads first and what
            it returns, of those where both are storages of their own.
        problem (str, optional): Why nothing is known.
    """

    def __init__(self, recorder) -> None:
        self.recorder = recorder
        self.calls: List[Noted] = []
        self.storages: List[Storage] = []
        self.moments: List[Moment] = []
        self.passes: Dict[str, Tuple[int, int]] = {}
        self.problem: Optional[str] = 'the network was not run for it'

    def noting(self, forward: Callable) -> Callable:
        """``forward`` for the recorder, with every operation noted."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with _Notes(self.recorder, self.calls):
                return forward(*args, **kwargs)

        return run

    def watch(self, model: nn.Module, forward: Callable,
              inputs: Tuple) -> 'Lifetimes':
        """Run the network again and see when its storages come and go.

        A network that does something else the second time is no error; it is
        told to those who ask for its memory.
        """
        known = [*model.parameters(), *model.buffers(), *tensors_of(inputs)]
        watch = _Watch(self.calls, known)
        try:
            with untouched(model), experts_as_operations(model), watch:
                forward(model, *inputs)
            watch.end()
        except _Differs as error:
            self.problem = str(error)
        except Exception as error:
            self.problem = (f'its forward fails in a second run '
                            f'({type(error).__name__}: {error})')
        else:
            self.problem = None
            self.storages = watch.storages
            self.moments = _fullest(watch.moments)
            self._find_passes(watch.of_node)
        self.calls = []
        return self

    def _find_passes(self, of_node: Dict[Optional[int], int]) -> None:
        for call in self.recorder.calls:
            ends = [
                of_node.get(nodes[0]) if nodes else None
                for nodes in (call.inputs, call.outputs)
            ]
            if None not in ends and ends[0] != ends[1]:
                self.passes[call.path] = ends[0], ends[1]


def presence(
    lifetimes: Lifetimes, enclosing: Callable[[str], Tuple[int, ...]],
    blocks: Dict[str,
                 int]) -> List[Tuple[int, Tuple[int, ...], Tuple[int, ...]]]:
    """In which moments a storage is there, and with which blocks it goes.

    What is made in a block that is gone is not there while it would run.
    After it, the block's output is: it is the block's input then, of the same
    shape. Where that is there too, it must not count twice: behind several
    blocks it is one of its own as soon as one of them stays. So the moment is
    taken once for each of these blocks, and the largest counts.

    Args:
        lifetimes (Lifetimes): What was seen.
        enclosing (Callable): From a path to the elements of the blocks that
            it lies in.
        blocks (dict[str, int]): Elements of the blocks in whose place an
            identity is put, by path.

    Returns:
        list[tuple]: Number of the storage, elements, numbers of moments.
    """
    before = {
        lifetimes.passes[path][1]: (lifetimes.passes[path][0], element)
        for path, element in blocks.items() if path in lifetimes.passes
    }
    when: Dict[tuple, List[int]] = defaultdict(list)
    number = 0
    for moment in lifetimes.moments:
        around = enclosing(moment.path)
        choices = []
        for place in sorted(moment.live):
            own = enclosing(lifetimes.storages[place].path)
            inside = tuple(block for block in own if block in around)
            behind = [] if inside else _behind(place, before, moment.live)
            choices.append([(place, inside + (block, )) for block in behind]
                           or [(place, inside)])
        for pick in islice(product(*choices), _CHOICES):
            for place, elements in pick:
                when[place, elements].append(number)
            number += 1
    return [(place, elements, tuple(moments))
            for (place, elements), moments in when.items()]


def _behind(place: int, before: Dict[int, Tuple[int, int]],
            live: Set[int]) -> List[int]:
    """Blocks between a storage and one that is there too; else none."""
    found = []
    while place in before:
        place, element = before[place]
        found.append(element)
        if place in live:
            return found
    return []


class _Differs(Exception):
    """A second run that is not the first one again."""


class _Notes(TorchFunctionMode):
    """Notes each operation while a recorder, below it, records."""

    def __init__(self, recorder, calls: List[Noted]) -> None:
        super().__init__()
        self.recorder, self.calls = recorder, calls

    def __torch_function__(self, func, types, args=(), kwargs=None):
        path = self.recorder.path
        out = func(*args, **(kwargs or {}))
        heads = _heads(func, args, kwargs or {})
        self.calls.append(
            Noted(path, [self._output(tensor) for tensor in _tensors(out)],
                  heads and [self._output(tensor) for tensor in heads],
                  _multihead(func, args, kwargs or {})))
        return out

    def _output(self, tensor: Tensor) -> Output:
        value = self.recorder.value(tensor)
        return Output(
            tuple(tensor.shape), value and value.labels, value and value.node)


class _Watch(TorchFunctionMode):
    """Sees which storages live at each operation, and holds none of them."""

    def __init__(self, calls: List[Noted], known: List[Tensor]) -> None:
        super().__init__()
        self.calls = iter(calls)
        self.storages: List[Storage] = []
        self.moments: List[Moment] = []
        self.of_node: Dict[Optional[int], int] = {}
        self._known = {_address(tensor) for tensor in known}
        self._alive: Dict[int, Tuple[StorageWeakRef, int]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self._alive = {
            address: held
            for address, held in self._alive.items() if not held[0].expired()
        }
        out = func(*args, **(kwargs or {}))
        tensors, call = _tensors(out), next(self.calls, None)
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if call is None or shapes != [o.shape for o in call.outputs]:
            raise _Differs('its forward does something else when it runs a '
                           'second time')
        for tensor, output in zip(tensors, call.outputs):
            address = _address(tensor)
            if address in self._known:
                continue
            if address not in self._alive:
                storage = tensor.untyped_storage()
                self._alive[address] = (StorageWeakRef(storage),
                                        len(self.storages))
                self.storages.append(
                    Storage(call.path, output.labels, storage.nbytes()))
            self.of_node[output.node] = self._alive[address][1]
        live = {number for _, number in self._alive.values()}
        inside = []
        if call.heads is not None:
            inside = _padded(call, tensors[0].element_size())
        elif call.whole is not None:
            inside = _multihead_storages(call)
        own = self.of_node.get(call.outputs[0].node) if inside else None
        for storages, with_result in inside:
            first = len(self.storages)
            self.storages += storages
            self.moments.append(
                Moment(
                    call.path, live - (set() if with_result else {own})
                    | {*range(first, len(self.storages))}))
        self.moments.append(Moment(call.path, live))
        return out

    def end(self) -> None:
        """Raise _Differs if the pass was shorter than the noted one."""
        if next(self.calls, None) is not None:
            raise _Differs('its forward stops earlier when it runs a second '
                           'time')


def _heads(func: Callable, args: Tuple,
           kwargs: Dict[str, Any]) -> Optional[List[Tensor]]:
    """Queries, keys and values, if it is PyTorch's attention."""
    if getattr(func, '__name__', '') != 'scaled_dot_product_attention':
        return None
    names = ('query', 'key', 'value')
    return [*args[:3], *(kwargs[name] for name in names[len(args):])]


#: Storages that are there inside an operation, and whether its result is too.
Inside = List[Tuple[List[Storage], bool]]


def _padded(call: Noted, number: int) -> Inside:
    """What attention takes where queries and values come to other dims.

    An exported layer fills up the fewer dims, see
    :func:`dms_razor.adapters.attention.attend`: queries and keys to those of
    the values, or values and result to those of the queries.

    Args:
        call (Noted): The call of the attention.
        number (int): Bytes of a number.
    """
    queries, keys, values = call.heads
    if None in (queries.labels, values.labels):
        return []
    places = (prod(queries.shape[:-1]) + prod(keys.shape[:-1])) * number
    return [([
        Storage(call.path, values.labels, places * values.shape[-1],
                queries.labels, True)
    ], True),
            ([
                Storage(call.path, queries.labels, places * queries.shape[-1],
                        values.labels, True)
            ], False)]


def _multihead(func: Callable, args: Tuple,
               kwargs: Dict[str, Any]) -> Optional[Dict[str, int]]:
    """Bytes of queries, keys and the attention map, of PyTorch's whole
    attention as one function."""
    if getattr(func, '__name__', '') != 'multi_head_attention_forward':
        return None
    # PyTorch hands these on by place, however they were given.
    query, key, dims, heads = args[0], args[1], args[3], args[4]
    batch = query.shape[1] if query.dim() == 3 else 1
    number, length, source = query.element_size(), len(query), len(key)
    with_map = kwargs.get('need_weights', True)
    return dict(
        queries=length * batch * dims * number,
        keys=source * batch * dims * number,
        map=with_map * batch * heads * length * source * number)


def _multihead_storages(call: Noted) -> Inside:
    """What it holds while it runs, as PyTorch's class or as our slim one.

    First twice the projections, where they are put in order; then the sums of
    the values, or two maps; then those, and their copy for the last layer.
    """
    queries, keys, size = (call.whole[n] for n in ('queries', 'keys', 'map'))

    def take(part: str, size: int, unlike: Optional[str] = None) -> Storage:
        return Storage(call.path, part, size, unlike, True)

    made = [take('queries', queries + keys), take('values', keys)]
    twice = [take('queries', queries + keys), take('values', keys)]
    sums, copy = take('values', queries), take('values', queries)
    maps = [take('heads', 2 * size)] if size else []
    found = [(made + twice, False), (made + [sums] + maps, False),
             (made + [sums, copy], True)]
    if not size:
        found += [
            (made + [sums, take('values', queries + keys, 'queries')], False),
            (made + [take('queries', queries + keys, 'values')], False)
        ]
    return found


def _tensors(out: Any) -> List[Tensor]:
    return [leaf for leaf in tree_flatten(out)[0] if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _fullest(moments: List[Moment]) -> List[Moment]:
    """Moments without those after which storages only come."""
    return [
        moment for moment, after in zip(
            moments, [*moments[1:], Moment('')]) if moment.live - after.live
    ]
