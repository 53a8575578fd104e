# Copyright (c) dms_razor contributors. All rights reserved.
"""A network and what it is called with.

* :mod:`.running`: run it so that nothing of it shows afterwards;
* :mod:`.attributes`: what a run changes in its modules;
* :mod:`.compiling`: whether torch.compile reads what runs;
* :mod:`.inputs`: what it is called with, in memory and in a manifest;
* :mod:`.samples`: how many samples that is.
"""
from .inputs import (as_arguments, describe_inputs, make_inputs, map_tensors,
                     to_device_of)
from .running import (alone, call, device_of, fingerprint, named_tensors,
                      refuse_no_network, refuse_wrapped, run_model, several,
                      shape_differences, state_shapes, tensors_of, untouched)
from .samples import samples_of

__all__ = [
    'alone', 'as_arguments', 'call', 'describe_inputs', 'device_of',
    'fingerprint', 'make_inputs', 'map_tensors', 'named_tensors',
    'refuse_no_network', 'refuse_wrapped', 'run_model', 'samples_of',
    'several', 'shape_differences', 'state_shapes', 'tensors_of',
    'to_device_of', 'untouched'
]
