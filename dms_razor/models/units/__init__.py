# Copyright (c) dms_razor contributors. All rights reserved.
from .base_unit import BankUnit
from .difftopk_channel_unit import DiffTopkChannelUnit
from .difftopk_depth_unit import DiffTopkDepthUnit

__all__ = ['BankUnit', 'DiffTopkChannelUnit', 'DiffTopkDepthUnit']
