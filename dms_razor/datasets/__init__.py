# Copyright (c) dms_razor contributors. All rights reserved.
"""Small real data that needs no download."""
from .digits import DigitsDataset

__all__ = ['DigitsDataset']
