# Copyright (c) dms_razor contributors. All rights reserved.
"""Experiments that come with the tool."""
