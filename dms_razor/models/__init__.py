# Copyright (c) dms_razor contributors. All rights reserved.
"""What MMRazor's model registry builds: algorithm, mutator, units, loss.

Importing this package makes OpenMMLab work on current torch first.
"""
from .. import compat

compat.apply()

from .algorithms import *  # noqa: E402,F401,F403
from .losses import *  # noqa: E402,F401,F403
from .mutators import *  # noqa: E402,F401,F403
from .static_supernet import DMSStaticSupernet  # noqa: E402,F401
from .submodel import DMSSubModel  # noqa: E402,F401
from .supernets import DMSSupernet  # noqa: E402,F401
from .units import *  # noqa: E402,F401,F403
