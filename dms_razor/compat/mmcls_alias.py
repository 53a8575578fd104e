# Copyright (c) dms_razor contributors. All rights reserved.
"""Let ``import mmcls.…`` find MMPretrain, its successor."""
from typing import Optional

from ..moved import AliasFinder

OLD, NEW = 'mmcls', 'mmpretrain'


def successor(name: str) -> Optional[str]:
    """MMPretrain's name for a module of MMCls; None for any other."""
    head, _, tail = name.partition('.')
    if head != OLD:
        return None
    return f'{NEW}.{tail}' if tail else NEW


def finder() -> AliasFinder:
    """What finds MMCls's modules in MMPretrain."""
    return AliasFinder(successor)
