# Copyright (c) dms_razor contributors. All rights reserved.
# OFA's space in widths and depths, to 3 ms on a device (paper, Table 13). The
# table is measured on that device and does not ship: README.md has the
# command.
_base_ = './dms-ofa-450m_8xb128-30e_in1k.py'

model = dict(
    metric='latency',
    latency_table='work_dirs/latency/ofa-mobilenet-v3.json',
    target='3ms')
