# Copyright (c) dms_razor contributors. All rights reserved.
"""Pictures of what a search found; they need matplotlib."""
from .structure_picture import draw_structure

__all__ = ['draw_structure']
