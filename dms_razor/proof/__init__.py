# Copyright (c) dms_razor contributors. All rights reserved.
"""A search space is proved on its network before anybody uses it."""
