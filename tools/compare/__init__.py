# Copyright (c) dms_razor contributors. All rights reserved.
"""Comparison of networks, methods and budgets: ``python tools/compare``."""
