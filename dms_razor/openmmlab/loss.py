# Copyright (c) dms_razor contributors. All rights reserved.
"""The resource loss as a module that configs can name."""
from typing import Union

from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..core.budget import AUTO, check_weight, constraint_loss


@MODELS.register_module()
class ResourceConstraintLoss(nn.Module):
    """λ_res·L_res: log(r_c / r_t) above the target, else 0 (eq. 6, 7).

    Args:
        loss_weight (float | str): λ_res; the paper uses 0.1 to 10. Defaults
            to 'auto': each step takes the one that meets the target exactly,
            see :mod:`dms_razor.core.multiplier`.

    Raises:
        ValueError: If the weight is below 0, or neither a number nor 'auto'.
    """

    def __init__(self, loss_weight: Union[float, str] = AUTO) -> None:
        super().__init__()
        self.loss_weight = check_weight(loss_weight)

    def forward(self, current: Tensor, target: float) -> Tensor:
        """Compute the weighted loss.

        Args:
            current (Tensor): r_c, cost of the network, a scalar.
            target (float): r_t, what it may cost now, in the same units.

        Returns:
            Tensor: A scalar, 0 where the network is within the target.
        """
        return constraint_loss(current, target, self.loss_weight)

    @property
    def exact(self) -> bool:
        """Whether 'auto' may stand for it: not where a subclass computes
        another loss."""
        return type(self).forward is ResourceConstraintLoss.forward

    def extra_repr(self) -> str:
        """The weight, for ``print``."""
        return f'loss_weight={self.loss_weight}'
