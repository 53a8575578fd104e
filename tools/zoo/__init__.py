# Copyright (c) dms_razor contributors. All rights reserved.
"""Is every network searched truly? ``python tools/zoo --help``."""
