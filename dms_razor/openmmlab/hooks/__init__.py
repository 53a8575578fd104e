# Copyright (c) dms_razor contributors. All rights reserved.
from .checkpoint import SubnetCheckpointHook
from .export import ExportSubnetHook
from .search import DMSHook
from .structure import StructureLogHook

__all__ = [
    'DMSHook', 'ExportSubnetHook', 'StructureLogHook', 'SubnetCheckpointHook'
]
