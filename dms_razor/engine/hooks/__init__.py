# Copyright (c) dms_razor contributors. All rights reserved.
from .dms_hook import DMSHook
from .export_subnet_hook import ExportSubnetHook
from .structure_log_hook import StructureLogHook

__all__ = ['DMSHook', 'ExportSubnetHook', 'StructureLogHook']
