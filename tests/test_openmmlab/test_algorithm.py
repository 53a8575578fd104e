# Copyright (c) dms_razor contributors. All rights reserved.
import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from mmrazor.models.algorithms import BaseAlgorithm
from mmrazor.registry import MODELS
from toy_models import algorithm, classifier

from dms_razor.masking import MaskedLayer


@pytest.fixture
def batch():
    images = torch.randn(4, 3, 16, 16)
    return images, [DataSample().set_gt_label(i) for i in range(4)]


def build(**settings):
    return MODELS.build(algorithm(**settings))


def driven(**settings):
    """An algorithm whose ratios an optimizer drives."""
    model = build(**settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=.05)
    model.search.attach(optimizer)
    model.set_length(10)
    return model, optimizer


def test_it_is_an_algorithm_of_mmrazor():
    model = build()
    assert isinstance(model, BaseAlgorithm)
    assert model.search.target == .5 * model.mutator.space.resource.supernet()
    assert model.search.bank is model.mutator.bank


def test_state_dict_and_parameters_are_those_of_the_architecture():
    model, plain = build(), MODELS.build(classifier())
    assert list(model.state_dict()) == [
        f'architecture.{name}' for name in plain.state_dict()
    ]
    assert sum(p.numel()
               for p in model.parameters()) == sum(p.numel()
                                                   for p in plain.parameters())


def test_task_losses_are_untouched_and_the_resource_is_added(batch):
    model, _ = driven()
    plain = MODELS.build(classifier())
    plain.load_state_dict({k[13:]: v for k, v in model.state_dict().items()})
    losses = model(*batch, mode='loss')
    torch.testing.assert_close(losses['loss'],
                               plain(*batch, mode='loss')['loss'])
    assert losses['loss_resource'].item() == 0  # warm: nothing above target
    model.search.advance(10)
    losses = model(*batch, mode='loss')
    assert losses['loss_resource'].item() == pytest.approx(
        torch.tensor(2.).log().item())


def test_weight_of_the_resource_loss():
    model, _ = driven(
        resource_loss=dict(type='ResourceConstraintLoss', loss_weight=3.))
    model.search.advance(10)
    assert model.search.resource_term().item() == pytest.approx(
        3 * torch.tensor(2.).log().item())


def test_validation_runs_the_subnet(batch):
    for eval_masks in ('hard', 'soft'):
        model = build(eval_masks=eval_masks).eval()
        model.search.bank.ratios += .3
        model.search.bank.refresh()
        seen = []
        model.architecture.backbone.conv1.register_forward_hook(
            lambda *_: seen.append(model.search.bank.mode))
        model(*batch, mode='predict')
        model(*batch, mode='tensor')
        assert seen == [eval_masks] * 2
        assert model.search.bank.mode == 'soft'


def test_choices_are_evaluated_as_they_are(batch):
    """Also those that a search's projection would change."""
    model, _ = driven()
    search = model.eval().search
    search.bank.updates = 1
    search.advance(10)
    assert search.at_target
    before = search.keep()
    model.mutator.set_choices(
        {unit.name: unit.spec.channels
         for unit in model.mutator.units})
    assert search.bank.mode == 'hard' and not before.all()
    plain = MODELS.build(classifier()).eval()
    plain.load_state_dict(model.architecture.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(batch[0]), plain(batch[0]))


def test_training_without_a_driver_is_an_error(batch):
    with pytest.raises(RuntimeError, match='DMSHook'):
        build()(*batch, mode='loss')


def test_shape_may_come_later(batch):
    model = build(input_shape=None)
    assert model.search is None
    model.eval()(*batch, mode='predict')
    with pytest.raises(RuntimeError, match='input_shape'):
        model(*batch, mode='loss')
    report = model.prepare(16)
    assert model.prepare(32) is report and report.ratios == 16


def test_batch_augmentation_of_the_model_survives_the_runner():
    """The runner hands the top-level data_preprocessor to the algorithm."""
    architecture = classifier()
    architecture['train_cfg'] = dict(augments=dict(type='Mixup', alpha=.8))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build(
            architecture=architecture,
            data_preprocessor=dict(
                num_classes=4, mean=[1., 2., 3.], std=[2.] * 3))
    preprocessor = model.data_preprocessor
    assert preprocessor is model.architecture.data_preprocessor
    assert preprocessor.mean.flatten().tolist() == [1., 2., 3.]
    data = dict(
        inputs=list(torch.randn(4, 3, 16, 16)),
        data_samples=[DataSample().set_gt_label(i) for i in range(4)])
    mixed = preprocessor(data, training=True)['data_samples']
    assert all('gt_score' in sample for sample in mixed)


def test_training_settings_of_the_model_stay(batch):
    model, optimizer = driven(
        architecture=classifier(frozen_stages=1, norm_eval=True, with_cp=True))
    inplace = [m.inplace for m in model.modules() if hasattr(m, 'inplace')]
    assert inplace and all(inplace)
    model.train()
    frozen = copy.deepcopy(model.architecture.backbone.layer1.state_dict())
    assert not any(p.requires_grad
                   for p in model.architecture.backbone.layer1.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        sum(model(*batch, mode='loss').values()).backward()
        optimizer.step()
    for name, value in model.architecture.backbone.layer1.state_dict().items():
        assert torch.equal(value, frozen[name])
    assert not model.architecture.backbone.bn1.training
    assert model.search.bank.updates == 2


def test_weights_are_initialised_as_without_masks():
    """Class swaps must not hide layers from mmengine's initialisers."""
    architecture = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmpretrain.EfficientNet', arch='b0'),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=3, in_channels=1280))
    torch.manual_seed(0)
    plain = MODELS.build(copy.deepcopy(architecture))
    torch.manual_seed(0)
    model = build(architecture=architecture, input_shape=64)
    for one in (plain, model):
        torch.manual_seed(1)
        one.init_weights()
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[f'architecture.{name}'], value)
    assert any(isinstance(m, MaskedLayer) for m in model.modules())


def test_a_built_architecture_and_built_parts():
    architecture = MODELS.build(classifier())
    model = build(
        architecture=architecture,
        mutator=MODELS.build(dict(type='mmrazor.DMSMutator', depth=False)),
        resource_loss=MODELS.build(
            dict(type='mmrazor.ResourceConstraintLoss')))
    assert model.architecture is architecture
    assert not model.mutator.depth_units


def test_a_copy_computes_the_same(batch):
    """EMAHook copies the model."""
    model = build().eval()
    model.mutator.set_choices(model.mutator.sample_choices())
    copied = copy.deepcopy(model)
    torch.testing.assert_close(
        copied(*batch, mode='tensor'), model(*batch, mode='tensor'))
    copied.architecture.head.fc.bias.data += 1
    torch.testing.assert_close(
        copied(*batch, mode='tensor'),
        model(*batch, mode='tensor') + 1)


@pytest.mark.parametrize('settings, error, message', [
    (dict(target='10%%'), ValueError, 'cannot be read'),
    (dict(target=10), ValueError, 'cannot be reached'),
    (dict(target=1e12), ValueError, 'above the supernet'),
    (dict(eval_masks='both'), ValueError, 'eval_masks'),
    (dict(input_shape=(3, 16)), ValueError, 'input_shape'),
    (dict(search=dict(epochs=-1)), ValueError, 'search.epochs'),
    (dict(mutator=dict(units={'bakbone.*': {}})), ValueError, 'bakbone'),
    (dict(metric='flops'), ValueError, 'flops'),
    (dict(architecture=[]), TypeError, 'architecture'),
])
def test_bad_input(settings, error, message):
    with pytest.raises(error, match=message):
        build(**settings)
