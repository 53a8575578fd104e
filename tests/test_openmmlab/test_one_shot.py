# Copyright (c) dms_razor contributors. All rights reserved.
import random

import pytest
import torch
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS
from toy_models import algorithm
from toy_runs import run, toy_config, with_validation


def one_shot(**settings):
    torch.manual_seed(0)
    config = algorithm(type='mmrazor.DMSOneShot', **settings)
    config.pop('target')
    return MODELS.build(config)


def batch():
    torch.manual_seed(1)
    return torch.randn(4, 3, 16,
                       16), [DataSample().set_gt_label(i) for i in range(4)]


def test_the_loss_is_the_mean_of_the_networks_losses():
    """Against each network alone, its choices made by hand."""
    model, (images, samples) = one_shot(samples=('min', 'max')), batch()
    model.train()
    loss = model(images, samples, mode='loss')['loss']
    losses = []
    for kind in ('min', 'max'):
        model.mutator.set_choices(model.mutator.sample_choices(kind))
        losses.append(model.architecture(images, samples, mode='loss')['loss'])
    torch.testing.assert_close(loss, (losses[0] + losses[1]) / 2)
    assert losses[0] != losses[1]


def test_only_what_is_kept_is_trained():
    model, (images, samples) = one_shot(samples=('random', )), batch()
    random.seed(3)
    model.train()
    model(images, samples, mode='loss')['loss'].backward()
    bank, name = model.search.bank, 'backbone.layer3.0.conv1'
    unit = model.mutator._name2unit[name]
    kept = bank.hard()[bank.layout.slice_of(unit.index)]
    assert 0 < kept.sum() < len(kept)
    grad = model.architecture.backbone.layer3[0].conv2.weight.grad
    assert grad[:, kept].abs().sum() > 0 and not grad[:, ~kept].any()


def test_validation_runs_the_whole_supernet(tmp_path):
    cfg = with_validation(toy_config(tmp_path, max_iters=8))
    cfg.model = algorithm(type='mmrazor.DMSOneShot')
    cfg.model.pop('target')
    cfg.custom_hooks = []
    runner = run(cfg)
    assert runner.iter == 8
    model = runner.model.eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        seen = model(images)
        model.mutator.set_choices(model.mutator.sample_choices('max'))
        torch.testing.assert_close(seen, model.architecture(images))
        model.mutator.set_choices(model.mutator.sample_choices('min'))
        assert not torch.allclose(seen, model.architecture(images))
        torch.testing.assert_close(seen, model(images))


@pytest.mark.parametrize('settings, message', [
    (dict(input_shape=None), 'input_shape'),
    (dict(samples=()), 'samples'),
    (dict(samples=('greedy', )), 'greedy'),
])
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        one_shot(**settings)
