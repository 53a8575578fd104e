# Copyright (c) dms_razor contributors. All rights reserved.
"""A plain model's checkpoint as the weights of a supernet."""
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Tuple

from torch import Tensor, nn

PREFIX = 'architecture.'
# Bookkeeping that older checkpoints lack and that carries no weights.
_OPTIONAL = ('num_batches_tracked', )


@dataclass
class LoadReport:
    """What of a checkpoint fits a network, by tensor name.

    Attributes:
        matched (list[str]): In both, with the same shape.
        missing (list[str]): Only in the network.
        unexpected (list[str]): Only in the checkpoint.
        misshapen (list[str]): In both, ``name: (shape) is not (shape)``.
    """
    matched: List[str] = field(default_factory=list)
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    misshapen: List[str] = field(default_factory=list)

    def text(self) -> str:
        """The report for people; names are given where things differ."""
        return '; '.join([
            f'{len(self.matched)} tensors of the checkpoint match',
            *(f'{len(names)} {kind}: {", ".join(names)}'
              for kind, names in vars(self).items()
              if kind != 'matched' and names)
        ])

    def strange(self) -> List[str]:
        """Unexpected weights: not the buffers of other versions of a layer."""
        known = {
            name.rpartition('.')[0]
            for name in self.matched + self.missing
        }
        return [
            name for name in self.unexpected
            if name.rpartition('.')[0] not in known or name.endswith((
                '.weight', '.bias'))
        ]


def as_supernet(checkpoint: dict) -> None:
    """Rename a plain model's tensors to those of a DMS algorithm, in place.

    Args:
        checkpoint (dict): A loaded checkpoint, with ``state_dict`` or being
            one. That of a search is left alone.
    """
    state = _state_of(checkpoint)
    if not any(key.startswith(PREFIX) for key in state):
        renamed = {
            PREFIX + key.removeprefix('module.'): value
            for key, value in state.items()
        }
        state.clear()
        state.update(renamed)


def compare_weights(checkpoint: dict, model: nn.Module) -> LoadReport:
    """Compare a checkpoint with a DMS algorithm.

    Args:
        checkpoint (dict): After :func:`as_supernet`.
        model (nn.Module): The algorithm.
    """
    state, own = _shapes(_state_of(checkpoint)), _shapes(model.state_dict())
    return LoadReport(
        matched=[name for name in own if state.get(name) == own[name]],
        missing=[
            name for name in own
            if name not in state and not name.endswith(_OPTIONAL)
        ],
        unexpected=[name for name in state if name not in own],
        misshapen=[
            f'{name}: {state[name]} is not {shape}'
            for name, shape in own.items() if state.get(name, shape) != shape
        ])


def check_weights(report: LoadReport, filename: str = 'the checkpoint'):
    """Refuse a checkpoint that is another network's.

    The head may differ: its classes are the task's. Everything before it has
    to be there, in the right shape, and nothing else: a larger network of
    the same family holds all the names of a smaller one.

    Args:
        report (LoadReport): Of :func:`compare_weights`.
        filename (str): For the message.

    Raises:
        ValueError: If a tensor outside the head is missing, has another
            shape, or is not part of the network.
    """
    foreign = [
        entry
        for entry in report.misshapen + report.missing + report.strange()
        if 'head' not in entry.split('.')[0]
    ]
    if foreign or not report.matched:
        shown = ', '.join(foreign[:3] or report.unexpected[:3])
        raise ValueError(
            f'{filename} does not hold the weights of this supernet: '
            f'{len(foreign)} tensors are missing, of another shape or unknown '
            f'({shown}, …), {len(report.matched)} match. Load a checkpoint of '
            'the very same architecture, or set allow_partial=True in DMSHook '
            'to train the rest from scratch')


def _state_of(checkpoint: dict) -> Dict[str, Tensor]:
    return checkpoint.get('state_dict', checkpoint)


def _shapes(state: Mapping[str, Tensor]) -> Dict[str, Tuple[int, ...]]:
    """Shapes of the architecture's tensors, by names without the prefix."""
    return {
        key[len(PREFIX):]: tuple(value.shape)
        for key, value in state.items()
        if key.startswith(PREFIX) and isinstance(value, Tensor)
    }
