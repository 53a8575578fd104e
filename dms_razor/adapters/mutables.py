# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's Autoformer without its mutable, while a file is written.

The backbone's forward asks a mutable for the present width of the embedding,
which is the number of ones in a tensor; torch.export cannot know it. Where
there is no mutable the forward takes its largest width, and for a plain
network that is the same. The mutable itself stays in the network: its mask is
in the checkpoints.
"""
from contextlib import ExitStack, contextmanager
from typing import Iterator, Optional
from unittest.mock import patch

from torch import nn

_BACKBONE = ('mmrazor.models.architectures.backbones.searchable_autoformer',
             'AutoformerBackbone')


def width_mutable(module: nn.Module) -> Optional[str]:
    """Name of the mutable that a module's forward asks for its width."""
    kinds = [(kind.__module__, kind.__name__) for kind in type(module).__mro__]
    return 'mutable_embed_dims' if _BACKBONE in kinds else None


@contextmanager
def widths_without_mutables(network: nn.Module) -> Iterator[None]:
    """Set the mutables of Autoformer backbones aside in the body.

    Args:
        network (nn.Module): A network; others than Autoformer stay as they
            are, and so does a backbone that is not at its largest width.
    """
    with ExitStack() as stack:
        for module in network.modules():
            name = width_mutable(module)
            mutable = module._modules.get(name)
            if mutable is not None and int(
                    mutable.current_choice) == module.embed_dim_range[-1]:
                stack.enter_context(patch.dict(module._modules, {name: None}))
        yield
