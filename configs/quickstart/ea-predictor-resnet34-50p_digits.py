# Copyright (c) dms_razor contributors. All rights reserved.
# The evolution with a predictor: 40 networks are scored to learn from, the
# scores of all others are predicted by regression trees.
_base_ = './ea-resnet34-50p_digits.py'

train_cfg = dict(
    predictor_cfg=dict(
        train_samples=40,
        handler_cfg=dict(type='mmrazor.CartsHandler', num_trees=50)))
