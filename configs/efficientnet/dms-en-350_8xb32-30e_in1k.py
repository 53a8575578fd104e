# Copyright (c) dms_razor contributors. All rights reserved.
# DMS-EN-350: as DMS-EN-B0, to 0.35G MACs.
_base_ = './dms-en-b0_8xb32-30e_in1k.py'

model = dict(target='0.35G')
