# Copyright (c) dms_razor contributors. All rights reserved.
"""What this project knows of other packages' classes, by name alone.

No module here imports the package whose class it names.
"""
from . import attention, csp  # noqa: F401  (they register themselves)
