# Copyright (c) dms_razor contributors. All rights reserved.
"""What a network and its parts take on a device.

* :mod:`.clock`: how long something runs, in PyTorch or in ONNX Runtime;
* :mod:`.parts`: the layers of a network, alone and at other widths;
* :mod:`.measure`: a table of latencies for :mod:`dms_razor.core.latency`.
"""
