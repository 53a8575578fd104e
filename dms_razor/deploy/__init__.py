# Copyright (c) dms_razor contributors. All rights reserved.
"""Subnets as files for deployment: ONNX, TorchScript, torch.export.

Plain torch; what belongs to a detector is read off its head's attributes.
"""
from .boxes import DetectedBoxes
from .check import difference, load, onnx_latency, write_compared
from .outputs import RawOutputs
from .write import FORMATS, DeployError, write_network

__all__ = [
    'DeployError', 'DetectedBoxes', 'FORMATS', 'RawOutputs', 'difference',
    'load', 'onnx_latency', 'write_compared', 'write_network'
]
