# Copyright (c) dms_razor contributors. All rights reserved.
"""A plain model's checkpoint as the weights of a supernet."""
from dataclasses import dataclass, field
from typing import Dict, List, Mapping

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
        lines = [f'{len(self.matched)} tensors of the checkpoint match']
        for kind in ('missing', 'unexpected', 'misshapen'):
            names = getattr(self, kind)
            if names:
                lines.append(f'{len(names)} {kind}: {", ".join(names)}')
        return '; '.join(lines)

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
    if any(key.startswith(PREFIX) for key in state):
        return
    renamed = {
        PREFIX + (key[7:] if key.startswith('module.') else key): value
        for key, value in state.items()
    }
    if state is checkpoint:
        checkpoint.clear()
        checkpoint.update(renamed)
    else:
        checkpoint['state_dict'] = renamed


def compare_weights(checkpoint: dict, model: nn.Module) -> LoadReport:
    """Compare a checkpoint with a DMS algorithm.

    Args:
        checkpoint (dict): After :func:`as_supernet`.
        model (nn.Module): The algorithm.
    """
    state, own = _tensors(_state_of(checkpoint)), _tensors(model.state_dict())
    report = LoadReport()
    for name, value in own.items():
        if name not in state:
            if not name.endswith(_OPTIONAL):
                report.missing.append(name)
        elif state[name].shape != value.shape:
            report.misshapen.append(f'{name}: {tuple(state[name].shape)} is '
                                    f'not {tuple(value.shape)}')
        else:
            report.matched.append(name)
    report.unexpected = [name for name in state if name not in own]
    return report


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
    if not foreign and report.matched:
        return
    shown = ', '.join(foreign[:3] or report.unexpected[:3])
    raise ValueError(
        f'{filename} does not hold the weights of this supernet: '
        f'{len(foreign)} tensors are missing, of another shape or unknown '
        f'({shown}, …), {len(report.matched)} match. Load a checkpoint of the '
        'very same architecture, or set allow_partial=True in DMSHook to '
        'train the rest from scratch')


def _state_of(checkpoint: dict) -> Mapping[str, Tensor]:
    return checkpoint.get('state_dict', checkpoint)


def _tensors(state: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Tensors of the architecture, without the prefix."""
    return {
        key[len(PREFIX):]: value
        for key, value in state.items()
        if key.startswith(PREFIX) and isinstance(value, Tensor)
    }
