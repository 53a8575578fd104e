# Copyright (c) dms_razor contributors. All rights reserved.
from .dms_mutator import DMSMutator

__all__ = ['DMSMutator']
