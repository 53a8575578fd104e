# Copyright (c) dms_razor contributors. All rights reserved.
"""How channels pass through each kind of operation; the facts: ``table``."""
from . import attention  # noqa: F401  (they register themselves)
from . import contraction  # noqa: F401
from . import cutting  # noqa: F401
from . import einsum  # noqa: F401
from . import elementwise  # noqa: F401
from . import movement  # noqa: F401
from . import multihead  # noqa: F401
from . import norm  # noqa: F401
from . import recurrent  # noqa: F401
from . import reduction  # noqa: F401
from .table import RULES, register_rule

__all__ = ['RULES', 'register_rule']
