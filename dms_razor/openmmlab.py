# Copyright (c) dms_razor contributors. All rights reserved.
"""The OpenMMLab half: importing this module registers everything.

Configs name it once::

    custom_imports = dict(
        imports=['dms_razor.openmmlab'], allow_failed_imports=False)

It makes MMRazor work on current torch (:mod:`dms_razor.compat`) before
anything of MMRazor is imported.
"""
from . import compat

compat.apply()

import dms_razor.datasets  # noqa: E402,F401
import dms_razor.engine  # noqa: E402,F401
import dms_razor.models  # noqa: E402,F401
