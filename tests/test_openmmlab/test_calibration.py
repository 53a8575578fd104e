# Copyright (c) dms_razor contributors. All rights reserved.
"""Validation runs the hard network with statistics of its own."""
import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from toy_runs import toy_config, with_validation

from dms_razor.openmmlab.calibration import predict, training_loader
from dms_razor.subnet.statistics import recalibrate, training_norms


class Seen(Hook):
    """Keeps the statistics that a validation runs with."""
    priority = 'VERY_LOW'

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        architecture = runner.model.architecture
        self.during = [
            norm.running_mean.clone() for norm in training_norms(architecture)
        ]
        with runner.model.evaluated():
            twin = copy.deepcopy(architecture)
            with training_loader(runner) as loader:
                recalibrate(twin, loader, 3, predict)
            self.expected = [
                norm.running_mean for norm in training_norms(twin)
            ]

    def after_val(self, runner):
        self.after = {
            name: value.clone()
            for name, value in runner.model.state_dict().items()
        }


@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize('batches', [3, 0])
def test_statistics_are_lent_for_a_validation(batches, ema, tmp_path):
    cfg = with_validation(toy_config(tmp_path, max_iters=8), interval=8)
    cfg.custom_hooks = [dict(type='mmrazor.DMSHook', bn_batches=batches)]
    if ema:
        cfg.custom_hooks.append(dict(type='EMAHook', update_buffers=True))
    cfg.model.search = dict(iters=6, width_only_iters=2)
    runner, seen = Runner.from_cfg(cfg), Seen()
    runner.register_hook(seen)
    runner.train()
    norms = training_norms(runner.model.architecture)
    changed = any(not one.running_mean.equal(other)
                  for one, other in zip(norms, seen.during))
    if batches:
        for found, expected in zip(seen.during, seen.expected):
            torch.testing.assert_close(found, expected, atol=.1, rtol=.1)
        assert changed
    elif not ema:
        assert not changed
    for name, value in runner.model.state_dict().items():
        assert value.equal(seen.after[name]), name
