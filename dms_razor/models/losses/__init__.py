# Copyright (c) dms_razor contributors. All rights reserved.
from .resource_constraint_loss import ResourceConstraintLoss

__all__ = ['ResourceConstraintLoss']
