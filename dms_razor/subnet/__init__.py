# Copyright (c) dms_razor contributors. All rights reserved.
"""Subnets: cut out of the supernet, written down, and built again.

:func:`export_subnet` turns a supernet and the elements that a search kept
into a folder of files; :func:`build_subnet` turns the standard network and
such a folder back into the subnet, without tracing. torch is all they need.
"""
from ..counting import Count, count_macs, count_params
from ..errors import SubnetError
from ..moved import moved_names
from .build import apply_manifest, build_subnet
from .export import Export, export_subnet
from .manifest import Manifest
from .portable import write_portable
from .report import Report
from .slicing import slice_model
from .statistics import recalibrate
from .sweeps import sweep
from .weights import load_weights, read_weights

__all__ = [
    'apply_manifest', 'build_subnet', 'Count', 'count_macs', 'count_params',
    'Export', 'export_subnet', 'load_weights', 'Manifest', 'read_weights',
    'recalibrate', 'Report', 'slice_model', 'SubnetError', 'sweep',
    'write_portable'
]

__getattr__ = moved_names(__name__)
