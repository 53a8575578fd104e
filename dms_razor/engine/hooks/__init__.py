# Copyright (c) dms_razor contributors. All rights reserved.
from .dms_hook import DMSHook
from .export_subnet_hook import ExportSubnetHook
from .structure_log_hook import StructureLogHook
from .subnet_checkpoint_hook import SubnetCheckpointHook

__all__ = [
    'DMSHook', 'ExportSubnetHook', 'StructureLogHook', 'SubnetCheckpointHook'
]
