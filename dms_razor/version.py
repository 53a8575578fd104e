# Copyright (c) dms_razor contributors. All rights reserved.
"""The version of the package; ``setup.py`` reads it without importing us."""

__version__ = '0.1.0'
