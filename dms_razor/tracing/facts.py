# Copyright (c) dms_razor contributors. All rights reserved.
"""What a trace found out about a network's tensors and operations."""
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

import numpy as np
import torch
from torch import Tensor

from .labels import Variables


@dataclass
class TensorAxis:
    """Labels along one axis of a parameter or buffer.

    Attributes:
        name (str): Full name of the parameter or buffer.
        axis (int): The axis.
        labels (Tensor): Shape ``[size]``, or ``[groups * size]`` group-major
            for the input axis of a grouped convolution.
        groups (int): Number of groups, 1 if the axis is not grouped.
        reads (bool): The axis is contracted with an activation: masks act
            here (METHOD section 2).
    """
    name: str
    axis: int
    labels: Tensor
    groups: int = 1
    reads: bool = False


@dataclass
class Operation:
    """A convolution, linear layer or matrix product and its cost in MACs.

    ``macs = coefficient * prod(number of channels in each axis)``, of all
    samples of the example.
    """
    module: str
    op: str
    node: int
    coefficient: float
    axes: Tuple[Tensor, ...]


@dataclass
class Producer:
    """A vector of fresh channels, e.g. the outputs of a convolution."""
    module: str
    labels: Tensor


@dataclass
class Heads:
    """Attention heads: a product of queries and keys, then of values.

    Where n query heads share the keys and values of one head (grouped-query
    attention; multi-query, if that is all of them), H counts the shared ones.

    Attributes:
        module (str): Path of the module that multiplies.
        heads (Tensor): One fresh variable a head, ``[H]``.
        queries (Tensor): Labels of the queries, ``[H, n * d_qk]``.
        keys (Tensor): Labels of the keys, ``[H, d_qk]``.
        values (Tensor): Labels of the values, ``[H, d_v]``; None until the
            second product was seen.
        stays (str): Why all heads stay, while their dims may go; or ''.
        inner (Tensor): One fresh variable a query head, ``[H, n]``; None
            where no keys are shared.
        made (Tensor): Labels of what query heads return, ``[H, n * d_v]``,
            where keys are shared.
    """
    module: str
    heads: Tensor
    queries: Tensor
    keys: Tensor
    values: Optional[Tensor] = None
    stays: str = ''
    inner: Optional[Tensor] = None
    made: Optional[Tensor] = None

    @property
    def scores(self) -> Tensor:
        """Labels of its scores: one a query head."""
        return self.heads if self.inner is None else self.inner.reshape(-1)

    @property
    def results(self) -> Optional[Tensor]:
        """Labels of what its heads return: the values, if none are shared."""
        return self.values if self.inner is None else self.made


@dataclass
class Shared:
    """A constant that meets channels of all heads alike.

    Attributes:
        labels (Tensor): Those of the channels.
        constant (Tensor): Those of the constant, of as many dimensions; 1 in
            some where the channels vary.
        reason (str): Why the channels stay, if they are dims of heads.
    """
    labels: Tensor
    constant: Tensor
    reason: str


@dataclass
class Choice:
    """A softmax over scores, whose largest say which experts a word takes.

    Attributes:
        module (str): Path of the module that takes the softmax: the router.
        labels (Tensor): Labels of the scores, one an expert, ``[E]``.
        dim (int): Their dimension, counted from the last, negative.
        marker (Tensor): One fresh variable, that of the softmax.
        chosen (Tensor): One of the numbers of those that were chosen.
        reason (str): Why the experts stay, if more is made of the scores.
        least (int): How many a word takes: so many have to stay.
        used (bool): Whether experts were seen that take these numbers.
    """
    module: str
    labels: Tensor
    dim: int
    marker: Tensor
    chosen: Tensor
    reason: str
    least: int = 1
    used: bool = False


@dataclass
class NormAxis:
    """A norm that takes its statistics over channels.

    Attributes:
        module (str): Path of the module that runs the norm.
        op (str): 'layer_norm', 'rms_norm', 'group_norm', 'mean' of one that
            is written out, or 'softmax' of a router.
        labels (Tensor): Labels of what it normalises over, ``[C]``.
        groups (int): Groups of a group norm, else 1.
    """
    module: str
    op: str
    labels: Tensor
    groups: int = 1


@dataclass
class ComputedWeight:
    """A weight that is computed from parameters before a layer reads it.

    Attributes:
        name (str): The parameter that holds its numbers.
        module (str): Path of the module that runs the layer's operation.
        node (int): That operation.
        chain (tuple[int]): The operations that compute it.
        labels (Tensor): Labels of its entries, of its shape; outputs first.
        axes (tuple[int]): The parameter's axes of outputs and inputs.
        made (Tensor): Labels of the channels that the layer makes.
        read (Tensor): Labels of those that it reads.
        names (list[str]): All parameters and buffers it is computed from.
        how (str | None): How masks are read: on the parameter ('plain'), also
            before the layer is called ('early'), or by what computes with it
            ('statistics'). None as long as it has not been judged.
        rows (bool): Entries of several outputs are mixed.
    """
    name: str
    module: str
    node: int
    chain: Tuple[int, ...]
    labels: Tensor
    axes: Tuple[int, int]
    made: Tensor
    read: Tensor
    names: List[str] = field(default_factory=list)
    how: Optional[str] = None
    rows: bool = False


@dataclass
class Partition:
    """Equal parts of a vector that must keep equal counts.

    The groups of a grouped convolution, the pieces of a split, or
    (``reshaped``) rows of a tensor that was given another shape.
    """
    labels: Tensor
    module: str
    why: str
    reshaped: bool = False


@dataclass
class Piece:
    """A part of a vector with a length of its own in the module's code."""
    module: str
    labels: Tensor


class Facts:
    """Collects what rules find out; read by the builder of the space."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.axes: Dict[Tuple[str, int], TensorAxis] = {}
        self.operations: List[Operation] = []
        self.producers: List[Producer] = []
        self.partitions: List[Partition] = []
        self.pieces: List[Piece] = []
        self.heads: List[Heads] = []
        self.shared: List[Shared] = []
        self.norms: Dict[str, NormAxis] = {}
        self.entry_labels: Dict[str, Tensor] = {}
        # Modules that are linear in their own weight and bias.
        self.affine: Set[str] = set()
        # Weights that are computed; by all names they are computed from.
        self.computed: List[ComputedWeight] = []
        self.read_how: Dict[str, ComputedWeight] = {}
        # Parameters -> other modules than their own that read them.
        self.borrowed: Dict[str, Set[str]] = defaultdict(set)
        # Weights -> their names in the layers that read them: others than
        # their own where a second layer has them, too, such as a head that
        # is tied to the embedding of words.
        self.read_as: Dict[str, Set[str]] = defaultdict(set)
        # Numbers of modules -> the labels that they follow.
        self.numbers: Dict[str, Dict[str, Tensor]] = {}
        # Tensors that are used in a way that is not understood -> reason.
        self.whole: Dict[str, str] = {}
        # Channels of which at least two have to stay.
        self.twice: List[Tensor] = []
        # Routers, and vectors of which so many neighbours go together.
        self.choices: List[Choice] = []
        self.steps: List[Tuple[Tensor, int]] = []
        # Rows of channels that keep equal counts, as bytes of their labels.
        self.parts: Set[bytes] = set()
        self._cuts: Dict[tuple, List[Tensor]] = {}

    def axis(self,
             name: Optional[str],
             axis: int,
             labels: Tensor,
             groups: int = 1,
             reads: bool = False) -> None:
        """A tensor's axis carries ``labels``; a second use merges them."""
        if name is None:
            return
        known = self.axes.get((name, axis))
        if known is not None and len(known.labels) == len(labels):
            self.variables.tie(known.labels, labels,
                               f'"{name}" also acts on a constant')
            known.reads |= reads
        elif known is not None:
            self.whole.setdefault(name, f'"{name}" is used in several widths')
            self.variables.fix(labels, self.whole[name])
        else:
            self.axes[name, axis] = TensorAxis(name, axis, labels.clone(),
                                               groups, reads)

    def outputs(self,
                name: str,
                module: str,
                number: int,
                axis: int = 0) -> Tensor:
        """Labels of what a weight produces; the same for every use of it."""
        known = self.axes.get((name, axis))
        if known is not None:
            return known.labels
        labels = self.variables.new(number)
        self.producers.append(Producer(module, labels))
        return labels

    def entries(self, name: str, tensor: Tensor) -> Tensor:
        """One label an entry, for a parameter that is used elementwise."""
        if name not in self.entry_labels:
            self.entry_labels[name] = self.variables.new(tensor.numel()).view(
                tensor.shape)
        return self.entry_labels[name]

    def split(self, module: str, pieces: List[Tensor], why: str) -> None:
        """A vector is cut into pieces; pieces of one size stay equal."""
        self.pieces += [Piece(module, labels) for labels in pieces]
        if len({len(labels) for labels in pieces}) == 1 and len(pieces) > 1:
            self.partitions.append(Partition(torch.stack(pieces), module, why))

    def cut(self, module: str, whole: Tensor, piece: Tensor, why: str) -> None:
        """One piece is cut off a vector; equal pieces of it stay equal."""
        self.pieces.append(Piece(module, piece))
        key = (module, tuple(whole.tolist()), len(piece))
        others = self._cuts.setdefault(key, [])
        if any(torch.equal(piece, other) for other in others):
            return  # cut off once more
        others.append(piece)
        if len(others) > 1:
            self.partitions.append(Partition(torch.stack(others), module, why))

    def finish(self) -> None:
        """Keep what is used in more than one way, or in an unknown way."""
        self._settle_shared()
        carried = [(axis.name, axis.labels) for axis in self.axes.values()]
        for name, _ in carried:
            if name in self.entry_labels:
                self.whole.setdefault(
                    name, f'"{name}" is used both as a weight and entry by '
                    'entry')
        for name, labels in (*carried, *self.entry_labels.items()):
            if name in self.whole:
                self.variables.fix(labels, self.whole[name])

    def _settle_shared(self) -> None:
        """What meets a constant is dims of heads, or goes with the constant.

        A table of positions (rotary embeddings) or a scale a dim, alike for
        all heads: a head may go and leaves it as it is, one of its dims may
        not. Elsewhere the constant shrinks with the channels.
        """
        classes = self.variables.classes()
        dims = [
            classes[labels.reshape(-1).numpy()] for fact in self.heads
            for labels in (fact.queries, fact.keys, fact.values)
            if labels is not None
        ]
        dims = np.concatenate(dims) if dims else np.zeros(0, int)
        for met in self.shared:
            if np.isin(classes[met.labels.reshape(-1).numpy()], dims).all():
                self.variables.hold(met.labels, met.reason)
                self.variables.fix(met.constant, met.reason)
            else:
                self.variables.merge(
                    *torch.broadcast_tensors(met.labels, met.constant))
