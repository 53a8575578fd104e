# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's evolution with our candidates, through mmengine's runner."""
import json
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.registry import LOOPS, init_default_scope
from mmrazor.engine.runner import EvolutionSearchLoop
from mmrazor.registry import MODELS
from toy_models import classifier
from toy_runs import run, toy_config, with_validation

from dms_razor.core import TargetError
from dms_razor.openmmlab.evolution import DMSEvolutionLoop, latest_state

EPOCHS = 3


def evolution_config(work_dir, model=None, hooks=(), **settings):
    """Three generations of eight on 64 toy images."""
    cfg = with_validation(toy_config(work_dir))
    cfg.model.pop('search')
    cfg.model.update(model or {})
    cfg.train_cfg = dict(
        dict(
            type='mmrazor.DMSEvolutionLoop',
            dataloader=dict(cfg.val_dataloader, batch_size=32),
            evaluator=cfg.val_evaluator,
            max_epochs=EPOCHS,
            num_candidates=8,
            top_k=3,
            num_mutation=3,
            num_crossover=3,
            calibrate_sample_num=16), **settings)
    cfg.custom_hooks = [
        dict(type='mmrazor.DMSHook'),
        dict(type='mmrazor.ExportSubnetHook', picture=False, bn_batches=0),
        *hooks
    ]
    return cfg


def state_of(folder, epoch=EPOCHS):
    path = Path(folder) / f'search_epoch_{epoch}.json'
    state = json.loads(path.read_text())
    state['cost'].pop('seconds')
    return state


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    return run(evolution_config(tmp_path_factory.mktemp('evolution')))


def test_the_loop_is_mmrazors(runner):
    assert isinstance(runner.train_loop, EvolutionSearchLoop)
    assert runner.train_loop.epoch == EPOCHS


def test_every_candidate_is_in_the_budget(runner):
    state, search = state_of(runner.work_dir), runner.model.search
    seen = [eval(name) for name in state['scores']]
    assert len(seen) > 8
    for choices in seen:
        kept = runner.model.mutator.counts_of(choices)
        cost = search.space.cost(search.bank.hard(kept), 'macs')
        assert .99 * search.target <= cost <= search.target
    for entry in state['candidates'] + state['top_k_candidates']:
        kept = search.bank.hard(
            runner.model.mutator.counts_of(entry['choices']))
        assert entry['flops'] == entry['cost'] == \
            search.space.cost(kept, 'macs')
        assert entry['params'] == search.space.cost(kept, 'params')


def test_the_best_is_exported_and_scores_what_it_scored(runner):
    """The exported network, validated by itself on the same images."""
    folder = Path(runner.work_dir) / 'subnet'
    state = state_of(runner.work_dir)
    best = state['top_k_candidates'][0]
    assert best['score'] == max(state['scores'].values())
    report = json.loads((folder / 'report.json').read_text())
    assert report['macs']['counted'] == best['flops']
    assert {unit['name']: unit['kept']
            for unit in report['units']} == {
                name: int(runner.model.mutator.counts_of(
                    best['choices'])[unit.index])
                for name, unit in runner.model.mutator._name2unit.items()
            }  # yapf: disable
    init_default_scope('mmpretrain')
    subnet = MODELS.build(
        dict(
            type='DMSSubModel',
            cfg=classifier(),
            subnet=str(folder / 'subnet.json'),
            checkpoint=str(folder / 'subnet.pth'))).eval()
    images = torch.randn(16, 3, 16, 16)
    runner.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            runner.model(images), subnet(images), atol=1e-5, rtol=1e-4)


def test_costs_are_counted(runner):
    state = state_of(runner.work_dir)
    number = len(state['scores'])
    # each on 64 images, after 16 of training
    assert state['cost'] == dict(evaluations=number, images=80 * number)
    cost = json.loads((Path(runner.work_dir) / 'search_cost.json').read_text())
    assert cost['images'] == 80 * number + 16  # once more for the export
    assert cost['seconds'] > 0


def test_a_resumed_evolution_is_the_unbroken_one(runner, tmp_path,
                                                 monkeypatch):

    def refused(*args, **kwargs):
        raise AssertionError('an evolution reads no pickle')

    run(evolution_config(tmp_path, max_epochs=1))
    assert latest_state(str(tmp_path)).endswith('search_epoch_1.json')
    for module, name in ((pickle, 'load'), (pickle, 'loads'), (torch, 'load')):
        monkeypatch.setattr(module, name, refused)
    resumed = run(evolution_config(tmp_path, resume_from='auto'))
    assert state_of(tmp_path) == state_of(runner.work_dir)
    for one, other in zip(resumed.model.buffers(), runner.model.buffers()):
        assert torch.equal(one, other)
    assert not list(tmp_path.glob('**/*.pkl'))


def test_old_states_go(runner, tmp_path):
    run(evolution_config(tmp_path, max_keep_ckpts=1, num_candidates=6))
    assert [p.name for p in tmp_path.glob('*epoch*')] == \
        ['search_epoch_3.json']
    assert len(list(Path(runner.work_dir).glob('search_epoch*'))) == 3


def test_calibration_uses_training_images(tmp_path, monkeypatch):
    """Statistics are those of the first training batches, by hand."""
    runner = run(evolution_config(tmp_path, max_epochs=1, num_candidates=6))
    loop, model = runner.train_loop, runner.model
    batches = loop._batches
    assert sum(len(batch['inputs']) for batch in batches) == 16
    assert len(batches) == 2
    stem = model.architecture.backbone.conv1
    norm = model.architecture.backbone.norm1
    with torch.no_grad(), model.search.masks('hard'):
        means = torch.stack([
            stem(model.data_preprocessor(batch, False)['inputs']).mean(
                (0, 2, 3)) for batch in batches
        ])
    torch.testing.assert_close(norm.running_mean, means.mean(0))


def test_without_calibration_nothing_of_the_supernet_changes(tmp_path):
    cfg = evolution_config(tmp_path, max_epochs=1, calibrate_sample_num=0)
    runner = run(cfg)
    for name, buffer in runner.model.named_buffers():
        if name.endswith('running_mean'):
            assert not buffer.any()
    state = state_of(tmp_path, 1)
    assert state['cost']['images'] == 64 * state['cost']['evaluations']


def test_a_predictor_stands_in_for_the_evaluation(tmp_path):
    cfg = evolution_config(
        tmp_path,
        predictor_cfg=dict(
            train_samples=6,
            handler_cfg=dict(type='mmrazor.CartsHandler', num_trees=5)))
    runner = run(cfg)
    state = state_of(tmp_path)
    assert len(state['samples']) == len(state['scores']) == 6
    assert state['cost']['evaluations'] == 6
    # afterwards the best of the predicted are looked at
    cost = json.loads((tmp_path / 'search_cost.json').read_text())
    assert 6 < cost['evaluations'] <= 9
    best = runner.train_loop.top_k_candidates
    scores = [next(iter(item.values()))['score'] for item in best.data]
    assert scores == sorted(scores, reverse=True)
    assert runner.model.mutator.current_choices == best.subnets[0]
    # resumed, it learns from the same samples and evaluates none
    cfg = evolution_config(
        tmp_path,
        resume_from=str(tmp_path / 'search_epoch_1.json'),
        predictor_cfg=cfg.train_cfg.predictor_cfg)
    run(cfg)
    assert state_of(tmp_path) == state


def test_a_searchs_checkpoint_brings_its_importances(tmp_path):
    trained = run(
        toy_config(
            tmp_path / 'search',
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=24))))
    cfg = evolution_config(tmp_path / 'ea', max_epochs=1, num_candidates=6)
    cfg.load_from = str(tmp_path / 'search/iter_24.pth')
    evolved = run(cfg)
    for name in ('importance', 'order'):
        assert torch.equal(
            getattr(evolved.model.search.bank, name),
            getattr(trained.model.search.bank, name))
    for one, other in zip(evolved.model.parameters(),
                          trained.model.parameters()):
        assert torch.equal(one, other)


@pytest.mark.parametrize('settings, error, message', [
    (dict(num_mutation=9), ValueError, 'more than num_candidates'),
    (dict(score_key='bbox_mAP'), ValueError, 'accuracy/top1'),
    (dict(model=dict(eval_masks='soft')), ValueError, 'hard masks'),
    (dict(hooks=[dict(type='EMAHook')]), ValueError, 'EMAHook'),
    (dict(resume_from='nothing.json'), ValueError, 'cannot be read'),
    (dict(predictor_cfg=dict(handler_cfg=dict(type='mmrazor.CartsHandler'),
                             handler_ckpt='some.joblib')), ValueError,
     'pickle'),
    (dict(model=dict(mutator=dict(units={'*layer[12]*': dict(fixed=True),
                                         '*': dict(divisor=32)},
                                  depth=False), target=.9),
          least=.9999), TargetError, 'too coarse'),
])  # yapf: disable
def test_bad_settings(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        run(evolution_config(tmp_path, **settings))


def test_no_export_hook_is_an_error(tmp_path):
    cfg = evolution_config(tmp_path)
    cfg.custom_hooks.pop()
    with pytest.raises(ValueError, match='ExportSubnetHook'):
        run(cfg)


def test_another_target_is_not_resumed(runner, tmp_path):
    path = str(Path(runner.work_dir) / 'search_epoch_1.json')
    with pytest.raises(ValueError, match='set the same target'):
        run(
            evolution_config(
                tmp_path, model=dict(target=.6), resume_from=path))


def test_it_is_registered_under_its_name():
    assert LOOPS.get('mmrazor.DMSEvolutionLoop') is DMSEvolutionLoop
