# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling in plain torch, readable beside the paper."""
