# Copyright (c) dms_razor contributors. All rights reserved.
"""A network whose outputs are a tensor, or a flat tuple, with names."""
from typing import List, Tuple, Union

from torch import Tensor, nn

from ..network import tensors_of, untouched


class RawOutputs(nn.Module):
    """A network in eval mode that returns a tensor, or several in a tuple.

    Classifiers return logits, a tensor as it is; detectors the raw outputs
    of their head, level by level, in one flat tuple. Images go in as the data
    preprocessor would hand them over.

    Args:
        model (nn.Module): The network; it is put into eval mode.
        images (Tensor): An example input of shape (B, C, H, W).

    Attributes:
        names (list[str]): Names of the outputs: ``'output'``, or the kind and
            the level, ``'scores_0'``, ``'boxes_0'``, …
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model = model
        put_into_eval(self)
        with untouched(model):
            self.names = _names(model(images))

    def forward(self, images: Tensor) -> Union[Tensor, Tuple[Tensor, ...]]:
        """(B, C, H, W) to the outputs, each with the batch in front."""
        found = self.model(images)
        return found if isinstance(found, Tensor) else tuple(tensors_of(found))


def put_into_eval(model: nn.Module) -> None:
    """eval() without what networks make of it: some return None from it."""
    for module in model.modules():
        module.training = False


def _names(out) -> List[str]:
    """Name the tensors of an output."""
    if isinstance(out, Tensor):
        return ['output']
    kinds = ('scores', 'boxes', 'factors')
    if (isinstance(out, (tuple, list)) and 2 <= len(out) <= len(kinds)
            and all(isinstance(part, (tuple, list)) for part in out)):
        return [
            f'{kind}_{level}' for kind, part in zip(kinds, out)
            for level in range(len(part))
        ]
    return [f'output_{number}' for number in range(len(tensors_of(out)))]
