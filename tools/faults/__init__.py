# Copyright (c) dms_razor contributors. All rights reserved.
"""Kills and hostile files, by the hundred; see ``python tools/faults -h``."""
