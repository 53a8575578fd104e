# Copyright (c) dms_razor contributors. All rights reserved.
"""Residual blocks of one stage, pruned by one differentiable top-k."""
from typing import Tuple

from mmrazor.registry import MODELS

from .base_unit import BankUnit


@MODELS.register_module()
class DiffTopkDepthUnit(BankUnit):
    """A depth unit: the removable blocks of one stage.

    A choice is the number of blocks that stay, the most important ones;
    0 empties the stage. It relates no channels.
    """

    @property
    def mutable_prefix(self) -> str:
        """str: MMRazor's name for this kind of search group."""
        return 'depth'

    @property
    def blocks(self) -> Tuple[str, ...]:
        """Paths of the removable blocks."""
        return self.spec.members
