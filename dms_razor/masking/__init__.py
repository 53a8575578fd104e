# Copyright (c) dms_razor contributors. All rights reserved.
"""Masks in a live network: layers that read the bank, and their removal."""
from .attach import MaskReader, attach, unmask
from .layers import MaskedLayer, masked_type

__all__ = ['attach', 'unmask', 'MaskReader', 'MaskedLayer', 'masked_type']
