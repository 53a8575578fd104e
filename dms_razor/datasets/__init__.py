# Copyright (c) dms_razor contributors. All rights reserved.
"""Small real data that needs no download.

Importing this package makes OpenMMLab work on current torch first.
"""
from .. import compat

compat.apply()

from .digit_scenes import write_digit_scenes  # noqa: E402
from .digits import DigitsDataset  # noqa: E402

__all__ = ['DigitsDataset', 'write_digit_scenes']
