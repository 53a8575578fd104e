# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's Autoformer without its mutable, while a file is written.

The backbone's forward asks a mutable for the present width of the embedding,
which is the number of ones in a tensor; torch.export cannot know it. Where
there is no mutable the forward takes its largest width, and for a plain
network that is the same. The mutable itself stays in the network: its mask is
in the checkpoints.
"""
import sys
from contextlib import contextmanager
from typing import Iterator

from torch import nn

_MODULE = 'mmrazor.models.architectures.backbones.searchable_autoformer'


@contextmanager
def widths_without_mutables(network: nn.Module) -> Iterator[None]:
    """Set the mutables of Autoformer backbones aside in the body.

    Args:
        network (nn.Module): A network; others than Autoformer stay as they
            are, and so does a backbone that is not at its largest width.
    """
    backbone = getattr(sys.modules.get(_MODULE), 'AutoformerBackbone', None)
    aside = []
    try:
        for module in network.modules() if backbone is not None else ():
            if not isinstance(module, backbone):
                continue
            mutable = module._modules.get('mutable_embed_dims')
            if mutable is not None and int(
                    mutable.current_choice) == module.embed_dim_range[-1]:
                aside.append((module, mutable))
        for module, _ in aside:
            module._modules['mutable_embed_dims'] = None
        yield
    finally:
        for module, mutable in aside:
            module._modules['mutable_embed_dims'] = mutable
