# Copyright (c) dms_razor contributors. All rights reserved.
"""What drives a search inside mmengine's runner, and what it writes."""
from .checkpoint import SubnetCheckpointHook
from .cost import SearchCostHook
from .export import ExportSubnetHook
from .search import DMSHook
from .structure import StructureLogHook

__all__ = [
    'DMSHook', 'ExportSubnetHook', 'SearchCostHook', 'StructureLogHook',
    'SubnetCheckpointHook'
]
