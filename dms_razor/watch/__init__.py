# Copyright (c) dms_razor contributors. All rights reserved.
"""Watch a search: where it stands, a progress bar, curves for a logger.

:class:`~dms_razor.search.Search` hands itself over; nothing here changes it.
"""
from .finished import check_finished, check_loss
from .progress import Progress
from .rounding import soft_and_hard
from .status import Status, status_of
from .watchers import Watchers
from .writer import WriterLog

__all__ = [
    'check_finished', 'check_loss', 'Progress', 'soft_and_hard', 'Status',
    'status_of', 'Watchers', 'WriterLog'
]
