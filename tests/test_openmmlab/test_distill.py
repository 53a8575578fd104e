# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import math
import uuid

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmrazor.models.algorithms import SingleTeacherDistill
from toy_models import classifier
from toy_runs import (NoisyToyDataset, run, same_weights, toy_config,
                      with_validation)

from dms_razor.openmmlab.retrain import RetrainConfig
from dms_razor.subnet import SubnetError, build_subnet, export_subnet
from dms_razor.subnet.weights import load_weights, read_weights
from dms_razor.trace import trace

# A teacher that forgot to be in eval mode would drop nearly every block.
SUPERNET = classifier(drop_path_rate=.9)
DISTILL = """
_base_ = './retrain.py'
model = dict(
    _delete_=True,
    type='DMSDistill',
    architecture=_base_.model,
    teacher_ckpt='TEACHER')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The export of a subnet, and the checkpoint of its supernet."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp('export')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(copy.deepcopy(SUPERNET))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape) + .5)
    torch.save(dict(state_dict=model.state_dict()), folder / 'teacher.pth')
    base = with_validation(toy_config(folder, custom_hooks=[]))
    base.model = copy.deepcopy(SUPERNET)
    base.model.train_cfg = dict(augments=dict(type='Mixup', alpha=.8))
    base.data_preprocessor.num_classes = 4
    base.dump(str(folder / 'recipe.py'))
    space = trace(model, torch.zeros(1, 3, 16, 16))
    export_subnet(
        folder / 'subnet',
        model,
        space,
        space.random_selection(torch.Generator().manual_seed(5)),
        picture=False,
        retrain=RetrainConfig(str(folder / 'recipe.py'), base.model.to_dict()))
    (folder / 'subnet/distill.py').write_text(
        DISTILL.replace('TEACHER', str(folder / 'teacher.pth')))
    return folder


@pytest.fixture
def config(folder, tmp_path):
    """``config(max_iters)``: the config of the distillation."""

    def read(max_iters=4, **settings):
        cfg = Config.fromfile(folder / 'subnet/distill.py')
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = str(uuid.uuid4())
        cfg.train_cfg.max_iters = max_iters
        cfg.default_hooks.checkpoint.interval = 4
        cfg.merge_from_dict(settings)
        return cfg

    return read


@pytest.fixture
def build(config):
    """``build()``: the model of the distillation, as a runner has it."""

    def build(**settings):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return MODELS.build(
                dict(
                    config().model,
                    data_preprocessor=dict(num_classes=4),
                    **settings))

    return build


@pytest.fixture
def teacher(folder):
    """The supernet itself, in eval mode."""
    model = MODELS.build(dict(SUPERNET))
    model.load_state_dict(torch.load(folder / 'teacher.pth')['state_dict'])
    return model.eval()


def batch():
    images, samples = zip(
        *(item.values()
          for item in map(NoisyToyDataset().__getitem__, range(8))))
    return torch.stack(images), list(samples)


def subnet(folder, **settings):
    """The subnet as a retrain config builds it."""
    cfg = Config.fromfile(folder / 'subnet/retrain.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(cfg.model, **settings)).eval()


@pytest.mark.parametrize('settings, tau, weight', [
    ({}, 1., 1.),
    (dict(tau=3., loss_weight=.5), 3., .5),
])
def test_loss_is_that_of_hinton(build, teacher, settings, tau, weight):
    model = build(**settings)
    model.train()
    images, samples = batch()
    seen = []
    model.student.head.register_forward_hook(
        lambda module, inputs, output: seen.append(output.detach()))
    losses = model(images, samples, mode='loss')
    with torch.no_grad():
        q = teacher.head(teacher.extract_feat(images)) / tau
    expected = 0.
    for ours, theirs in zip(seen[0].double() / tau, q.double()):
        p, s = theirs.exp() / theirs.exp().sum(), ours.exp() / ours.exp().sum()
        expected += float((p * (p.log() - s.log())).sum())
    assert expected > 1e-3
    assert losses['distill.loss_kl'].item() == pytest.approx(
        weight * tau**2 * expected / len(images), rel=1e-4)
    labels = torch.cat([sample.gt_label for sample in samples])
    assert losses['student.loss'].item() == pytest.approx(
        torch.nn.functional.cross_entropy(seen[0], labels).item(), rel=1e-5)


def test_gradient_reaches_the_student_alone(build):
    model = build()
    model.train()
    losses = model(*batch(), mode='loss')
    losses['distill.loss_kl'].backward()
    assert all(p.grad is None and not p.requires_grad
               for p in model.teacher.parameters())
    gradients = [p.grad for p in model.student.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)
    assert not any(m.training for m in model.teacher.modules())
    assert all(m.training for m in model.student.modules())


def test_a_run(config, folder, teacher):
    runner = run(config())
    model = runner.model
    assert type(model) is SingleTeacherDistill
    # mixup, which the student's own config asks for, and one preprocessor
    assert model.data_preprocessor is model.student.data_preprocessor
    assert model.data_preprocessor.batch_augments is not None
    history = runner.message_hub.get_scalar('train/distill.loss_kl')
    losses, _ = history.data
    assert len(losses) == 4 and all(map(math.isfinite, losses))
    # no training, EMA or initialisation has touched the teacher
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, model.teacher.state_dict()[name]), name
    # validation is the student's
    images, samples = batch()
    model.eval()
    found = model(images, samples, mode='predict')
    alone = model.student(images, batch()[1], mode='predict')
    for one, other in zip(found, alone):
        assert torch.equal(one.pred_score, other.pred_score)

    # what was saved is the subnet's, for everything that reads its weights
    checkpoint = f'{runner.work_dir}/iter_4.pth'
    expected = model.student(images)
    again = subnet(folder, checkpoint=checkpoint)
    assert type(again) is ImageClassifier
    assert torch.equal(again(images), expected)
    again.init_weights()  # as a runner does
    assert torch.equal(again.eval()(images), expected)
    again = subnet(folder)
    assert not torch.equal(again(images), expected)
    load_weights(again, checkpoint)
    assert torch.equal(again(images), expected)
    plain = build_subnet(
        MODELS.build(dict(SUPERNET)), folder / 'subnet/subnet.json',
        checkpoint)
    assert torch.equal(plain.eval()(images), expected)
    again = subnet(folder)
    again.load_state_dict(read_weights(checkpoint, part='architecture'))
    assert torch.equal(again(images), expected)


def guarded(cfg):
    """The runner, with its checkpoint loaded, as the tools have it."""
    cfg.custom_hooks = [dict(type='mmengine.SubnetCheckpointHook')]
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    return runner


def test_the_subnet_is_tested_with_the_student(config, folder, tmp_path):
    model = run(config()).model
    cfg = Config.fromfile(folder / 'subnet/retrain.py')
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'test'), 'test'
    cfg.load_from = str(tmp_path / 'iter_4.pth')
    runner = guarded(cfg)
    for name, value in model.student.state_dict().items():
        assert torch.equal(value, runner.model.state_dict()[name]), name
    # and so is the distillation itself, with all of its weights
    again = guarded(config(load_from=cfg.load_from)).model
    assert all(
        torch.equal(value,
                    again.state_dict()[name])
        for name, value in model.state_dict().items())


def test_a_distillation_refuses_other_weights(config, folder):
    with pytest.raises(SubnetError, match='subnet.pth.*of this'):
        guarded(config(load_from=str(folder / 'subnet/subnet.pth')))


def test_resume(config, tmp_path):
    """As a run without a stop: nothing random is in these networks."""
    settings = {
        'model.architecture.cfg.backbone.drop_path_rate': 0.,
        'model.architecture.cfg.train_cfg': None,
    }
    whole = run(config(8, work_dir=str(tmp_path / 'whole'), **settings))
    run(config(4, **settings))
    resumed = run(config(8, resume=True, **settings))
    assert resumed.iter == 8
    assert same_weights(whole, resumed)
    assert not same_weights(whole, run(config(4, **settings)))


def test_from_searched_weights(config, folder):
    searched = str(folder / 'subnet/subnet.pth')
    runner = Runner.from_cfg(
        config(**{'model.architecture.checkpoint': searched}))
    runner.model.init_weights()
    for name, value in torch.load(searched).items():
        assert torch.equal(value, runner.model.student.state_dict()[name])


def test_average_of_weights(config):
    cfg = config(custom_hooks=[dict(type='EMAHook', momentum=.5)])
    runner = run(cfg)
    saved = read_weights(f'{runner.work_dir}/iter_4.pth', 'architecture')
    last = runner.model.student.state_dict()
    assert not torch.equal(saved['head.fc.weight'], last['head.fc.weight'])


def test_another_teacher(build, tmp_path):
    other = dict(
        SUPERNET, backbone=dict(SUPERNET['backbone'], base_channels=16))
    other['head'] = dict(SUPERNET['head'], in_channels=128)
    network = MODELS.build(copy.deepcopy(other))
    torch.save(network.state_dict(), tmp_path / 'other.pth')
    model = build(teacher=other, teacher_ckpt=str(tmp_path / 'other.pth'))
    model.init_weights()
    for name, value in network.state_dict().items():
        assert torch.equal(value, model.teacher.state_dict()[name])
    assert 'distill.loss_kl' in model(*batch(), mode='loss')


def test_another_distiller(build):
    """MMRazor's, with its own words for things."""
    recorder = dict(
        logits=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
    model = build(
        distiller=dict(
            type='mmrazor.ConfigurableDistiller',
            student_recorders=recorder,
            teacher_recorders=recorder,
            distill_losses=dict(loss_dist=dict(type='mmrazor.DISTLoss')),
            loss_forward_mappings=dict(
                loss_dist=dict(
                    logits_S=dict(recorder='logits', from_student=True),
                    logits_T=dict(recorder='logits', from_student=False)))))
    assert set(model(*batch(),
                     mode='loss')) == {'student.loss', 'distill.loss_dist'}


@pytest.mark.parametrize('change, message', [
    (lambda state: {
        f'architecture.{k}': v
        for k, v in state.items()
    }, 'and .* more missing'),
    (lambda state: dict(
        state, **{'backbone.layer4.9.conv1.weight': state['head.fc.weight']}),
     r'layer4.9.conv1.weight not expected'),
    (lambda state: dict(state, **{'head.fc.weight': torch.zeros(10, 64)}),
     'size mismatch for head.fc.weight'),
])
def test_checkpoint_of_another_network(build, folder, tmp_path, change,
                                       message):
    state = torch.load(folder / 'teacher.pth')['state_dict']
    torch.save(change(dict(state)), tmp_path / 'other.pth')
    with pytest.raises(
            SubnetError,
            match=f'(?s)not of the teacher.*{message}'
            '.*Name as teacher_ckpt'):
        build(teacher_ckpt=str(tmp_path / 'other.pth'))


def test_older_checkpoints_are_taken(build, folder, tmp_path):
    state = torch.load(folder / 'teacher.pth')['state_dict']
    torch.save(
        {
            name: value
            for name, value in state.items()
            if not name.endswith('num_batches_tracked')
        }, tmp_path / 'old.pth')
    build(teacher_ckpt=str(tmp_path / 'old.pth'))


def test_a_network_without_a_head(build, folder, tmp_path):
    state = torch.load(folder / 'teacher.pth')['state_dict']
    torch.save({
        k: v
        for k, v in state.items() if k.startswith('backbone.')
    }, tmp_path / 'backbone.pth')
    with pytest.raises(ValueError, match='has no head.*distiller='):
        build(
            teacher=dict(SUPERNET, head=None),
            teacher_ckpt=str(tmp_path / 'backbone.pth'))


@pytest.mark.parametrize('settings, message', [
    (dict(teacher_ckpt='none.pth'), 'none.pth.*no such file'),
    (dict(architecture=SUPERNET), 'no DMSSubModel.*teacher='),
    (dict(tau=0.), 'tau of DMSDistill is 0'),
    (dict(loss_weight=-1.), 'loss_weight of DMSDistill is -1'),
    (dict(tau=2., distiller=dict(type='mmrazor.ConfigurableDistiller')),
     'tau= would have no effect beside distiller='),
])
def test_what_is_refused(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
