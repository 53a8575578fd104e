# Copyright (c) dms_razor contributors. All rights reserved.
"""From quantised weights back to floating point, to merge and to cut."""
from torch import nn

from ..adapters import quantised
from ..masking.attach import unmask


def dequantise(model: nn.Module) -> nn.Module:
    """Put ordinary linear layers in the place of quantised ones, in place.

    Adapters of PEFT stay around them, and ``merge_and_unload()`` adds them to
    floating-point weights then; as long as a weight is quantised, PEFT rounds
    the sum to few bits again. An export does this by itself, in a copy; it is
    needed where adapters were put in after the search was made::

        dequantise(peft)
        peft.merge_and_unload()
        export = search.export('subnet')

    Masks are taken out: a search that is to go on puts them in again by
    ``search.attach_masks()``.

    Args:
        model (nn.Module): The network, or the model of ``get_peft_model``.

    Returns:
        nn.Module: The same network. Each weight is what the quantised layer
        multiplied by, in the type of the network's other parameters.

    Raises:
        ValueError: A layer computes no product of one weight; it is named.
    """
    return quantised.dequantise(unmask(model))
