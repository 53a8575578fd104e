# Copyright (c) dms_razor contributors. All rights reserved.
"""What a network and its parts take on a device.

* :mod:`.clock`: a network, ready to run in PyTorch or in ONNX Runtime;
* :mod:`.on_device`: how long something runs, also far from here;
* :mod:`.bench`: where networks are timed;
* :mod:`.parts`: the layers of a network, alone and at other widths;
* :mod:`.measure`: a table of latencies for :mod:`dms_razor.core.latency`;
* :mod:`.remote`: the same of a device with ONNX Runtime alone;
* :mod:`.gate`: what an export takes, measured beside what was promised.
"""
