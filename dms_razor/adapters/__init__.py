# Copyright (c) dms_razor contributors. All rights reserved.
"""What this project knows of other packages' classes, by name alone.

No module here imports the package whose class it names.
"""
from . import attention  # noqa: F401  (they register themselves)
from . import csp  # noqa: F401
from . import torch_attention  # noqa: F401
