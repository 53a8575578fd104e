# Copyright (c) dms_razor contributors. All rights reserved.
# The evolution with a predictor (paper, Table 3): 1,000 networks are scored
# to learn from, the scores of all others are predicted.
_base_ = './ea-ofa-450m_8xb128_in1k.py'

train_cfg = dict(
    predictor_cfg=dict(
        train_samples=1000,
        handler_cfg=dict(type='mmrazor.CartsHandler', num_trees=100)))
