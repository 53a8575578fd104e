# Copyright (c) dms_razor contributors. All rights reserved.
"""How a network of a row is found: one function a method, under its name.

A method gets a :class:`Job` and returns what it :class:`Found`. An experiment
registers its own::

    @METHODS.register('mine')
    def mine(job):
        return Found(my_network(job.supernet(), job.amount))
"""
from . import evolution, narrow, search, torch_pruning  # noqa: F401
from .job import METHODS, Found, Job

__all__ = ['METHODS', 'Found', 'Job']
