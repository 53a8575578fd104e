# Copyright (c) dms_razor contributors. All rights reserved.
import copy

import pytest
import torch
from mmengine.config import Config
from mmrazor.registry import MODELS
from toy_models import algorithm, classifier
from toy_runs import toy_config

from dms_razor.openmmlab.from_config import (algorithm_of_config, is_search,
                                             load_search, preflight_of_config)


def test_preflight_is_the_one_that_the_search_makes(tmp_path):
    cfg = toy_config(tmp_path)
    report = preflight_of_config(cfg)
    model = MODELS.build(cfg.model)
    model.set_length(24)
    assert report.to_dict() == model.search.preflight().to_dict()
    assert report.total_steps == 20 and report.lr == .2


def test_settings_of_the_search_count(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.model.update(
        metric='params',
        resource_loss=dict(type='ResourceConstraintLoss', loss_weight=5.),
        mutator=dict(lr=.01, depth=False))
    cfg.model.search = dict(epochs=3)
    report = preflight_of_config(cfg)
    assert report.target == report.supernet['params'] / 2
    assert report.kinds['depth']['units'] == 0
    assert report.total_steps is None  # only the data would tell
    cfg.model.resource_loss.loss_weight = 1.
    assert preflight_of_config(cfg).steps > 4 * report.steps


@pytest.mark.parametrize('weight, steps', [(1., 223), (10., 23)])
def test_weight_of_the_loss_reaches_both_preflights(weight, steps):
    """The run's own, and the one that tools/show_space.py prints."""
    model = algorithm(
        resource_loss=dict(type='ResourceConstraintLoss', loss_weight=weight),
        mutator=dict(lr=5e-3),
        search=dict(iters=50))
    cfg = Config(
        dict(
            model=copy.deepcopy(model),
            default_scope='mmpretrain',
            train_cfg=dict(max_iters=50, by_epoch=False)))
    report = MODELS.build(model).search.preflight()
    assert report.steps == preflight_of_config(cfg).steps == steps


def test_a_target_out_of_reach_is_told(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.model.target = 1000
    report = preflight_of_config(cfg)
    assert 'cannot be reached' in report.problem and report.target == 1000
    assert report.total_steps == 20 and 'reachable  no' in report.text()
    with pytest.raises(ValueError, match='cannot be reached'):
        algorithm_of_config(cfg)


def test_a_plain_model_has_no_target(tmp_path):
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=classifier(in_channels=1),
            test_dataloader=dict(
                dataset=dict(pipeline=[dict(type='Resize', scale=16)]))))
    assert not is_search(cfg)
    report = preflight_of_config(cfg)
    assert report.ratios == 16 and report.target is None
    with pytest.raises(ValueError, match='no search'):
        algorithm_of_config(cfg)


def test_checkpoint_fills_the_whole_search(tmp_path):
    cfg = toy_config(tmp_path)
    saved = algorithm_of_config(cfg)
    saved.search.bank.ratios += .25
    saved.search.bank.importance += torch.rand(saved.search.space.layout.E)
    saved.search.bank.refresh()
    torch.save(
        dict(state_dict=saved.state_dict(), dms=saved.search.state_dict()),
        tmp_path / 'search.pth')
    loaded = load_search(algorithm_of_config(cfg), tmp_path / 'search.pth')
    assert torch.equal(loaded.search.keep(), saved.search.keep())
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_checkpoint_of_another_search_is_refused(tmp_path):
    cfg = toy_config(tmp_path)
    saved = algorithm_of_config(cfg)
    torch.save(
        dict(state_dict=saved.state_dict(), dms=saved.search.state_dict()),
        tmp_path / 'search.pth')
    cfg.model.mutator.units = {'backbone.layer2.*': dict(divisor=4)}
    with pytest.raises(ValueError, match='not those of this network'):
        load_search(algorithm_of_config(cfg), tmp_path / 'search.pth')
