# Copyright (c) dms_razor contributors. All rights reserved.
import json

import pytest
import torch
from toy_runs import run, toy_config

from dms_razor.openmmlab.hooks.cost import cost_text, images_in


def config(work_dir, **settings):
    return toy_config(
        work_dir,
        custom_hooks=[
            dict(type='mmrazor.DMSHook'),
            dict(type='mmrazor.SearchCostHook')
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=4),
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=12)),
        **settings)


def cost_of(folder):
    return json.loads((folder / 'search_cost.json').read_text())


def test_a_search_of_24_batches_of_8(tmp_path):
    run(config(tmp_path, log_level='INFO'))
    cost = cost_of(tmp_path)
    assert cost['iterations'] == 24 and cost['images'] == 192
    assert 0 < cost['seconds'] < 120
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Cost of the search' in log and '192 images' in log


def test_a_resumed_search_adds_to_what_was_spent(tmp_path):
    run(config(tmp_path, max_iters=24))
    whole = cost_of(tmp_path)
    cfg = config(tmp_path, load_from=str(tmp_path / 'iter_12.pth'))
    cfg.resume = True
    run(cfg)
    resumed = cost_of(tmp_path)
    assert resumed['iterations'] == whole['iterations']
    assert resumed['images'] == whole['images']


@pytest.mark.parametrize('gpu, text', [
    (False, '48 CPU-hours, 900 iterations, 1,152,000 images'),
    (True, '2 GPU-days, 900 iterations, 1,152,000 images'),
])
def test_two_days_for_people(gpu, text, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cost = dict(seconds=172800., iterations=900, images=1152000)
    assert cost_text(cost) == text


def test_images_of_a_batch():
    images = torch.zeros(3, 1, 2, 2)
    assert images_in(dict(inputs=images, data_samples=[])) == 3
    assert images_in(dict(inputs=[*images])) == 3
    assert images_in((images, [0, 1, 2])) == 3
