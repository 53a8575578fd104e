# Copyright (c) dms_razor contributors. All rights reserved.
"""What drives a search inside mmengine's runner."""
from .hooks import *  # noqa: F401,F403
