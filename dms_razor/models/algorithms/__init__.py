# Copyright (c) dms_razor contributors. All rights reserved.
from .dms import DMS
from .schedule import SearchSchedule, Steps

__all__ = ['DMS', 'SearchSchedule', 'Steps']
