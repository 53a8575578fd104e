# Copyright (c) dms_razor contributors. All rights reserved.
from itertools import islice

import pytest
import torch
from mmengine.runner import Runner
from toy_runs import run, same_search, same_weights, toy_config

from dms_razor.openmmlab.calibration import predict, training_loader


def test_the_training_goes_on_as_if_nothing_had_been_drawn(tmp_path):
    plain = run(toy_config(tmp_path / 'plain'))
    runner = Runner.from_cfg(toy_config(tmp_path / 'looked'))

    def look(*args, **kwargs):
        with training_loader(runner) as loader:
            batches = list(islice(loader, 2))
        assert [len(batch['inputs']) for batch in batches] == [8, 8]

    runner.hooks[0].after_train_iter = look
    runner.train()
    assert same_search(plain, runner) and same_weights(plain, runner)


def test_state_returns_after_an_error(tmp_path):
    runner = Runner.from_cfg(toy_config(tmp_path))
    before = torch.get_rng_state()
    with pytest.raises(KeyError), training_loader(runner) as loader:
        next(iter(loader))
        assert not torch.equal(before, torch.get_rng_state())
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())


def test_predict_preprocesses_as_validation_does(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.data_preprocessor = dict(mean=[1.] * 3, std=[2.] * 3)
    runner = Runner.from_cfg(cfg)
    with training_loader(runner) as loader:
        batch = next(iter(loader))
    model = runner.model.eval()
    with torch.no_grad():
        found = predict(model, batch)
        expected = model.architecture.head.predict(
            model.architecture.extract_feat(
                (torch.stack([*batch['inputs']]) - 1) / 2))
    for one, other in zip(found, expected):
        torch.testing.assert_close(one.pred_score, other.pred_score)
