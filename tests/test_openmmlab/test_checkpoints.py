# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from mmrazor.registry import MODELS
from toy_models import algorithm, classifier

from dms_razor.openmmlab.checkpoints import (LoadReport, as_supernet,
                                             check_weights, compare_weights)


@pytest.fixture
def model():
    return MODELS.build(algorithm())


@pytest.fixture
def plain():
    return MODELS.build(classifier()).state_dict()


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrapped', [True, False])
def test_plain_weights_load_into_the_algorithm(model, plain, prefix, wrapped):
    state = {prefix + name: value for name, value in plain.items()}
    checkpoint = dict(state_dict=state, meta={}) if wrapped else state
    as_supernet(checkpoint)
    state = checkpoint['state_dict'] if wrapped else checkpoint
    model.load_state_dict(state, strict=True)
    for name, value in plain.items():
        assert torch.equal(model.architecture.state_dict()[name], value)


def test_a_search_checkpoint_is_left_alone(model):
    checkpoint = dict(state_dict=model.state_dict())
    names = list(checkpoint['state_dict'])
    as_supernet(checkpoint)
    assert list(checkpoint['state_dict']) == names


def report_of(model, state):
    checkpoint = dict(state_dict=dict(state))
    as_supernet(checkpoint)
    return compare_weights(checkpoint, model)


def test_report_names_what_differs(model, plain):
    del plain['backbone.layer1.0.conv1.weight']
    del plain['backbone.bn1.num_batches_tracked']  # no weight, not missed
    plain['ema.decay'] = torch.zeros(1)
    plain['head.fc.bias'] = torch.zeros(1000)
    report = report_of(model, plain)
    assert report.missing == ['backbone.layer1.0.conv1.weight']
    assert report.unexpected == ['ema.decay']
    assert report.misshapen == ['head.fc.bias: (1000,) is not (4,)']
    assert len(report.matched) == len(model.state_dict()) - 3
    for name in ('layer1.0.conv1', 'ema.decay', '(1000,) is not (4,)'):
        assert name in report.text()


def test_another_head_is_fine(model, plain):
    plain['head.fc.bias'] = torch.zeros(1000)
    del plain['head.fc.weight']
    check_weights(report_of(model, plain))


@pytest.mark.parametrize('break_it', [
    lambda state: state.pop('backbone.conv1.weight'),
    lambda state: state.update({'backbone.bn1.bias': torch.zeros(3)}),
    lambda state: state.update({'backbone.layer9.weight': torch.zeros(3)}),
    lambda state: state.update({'backbone.conv1.bias': torch.zeros(8)}),
    lambda state: state.clear(),
])
def test_another_network_is_refused(model, plain, break_it):
    break_it(plain)
    with pytest.raises(ValueError, match='some.pth does not hold'):
        check_weights(report_of(model, plain), 'some.pth')


def test_a_buffer_of_another_version_of_a_layer_is_fine(model, plain):
    plain['backbone.bn1.steps'] = torch.zeros(1)
    check_weights(report_of(model, plain))


def test_nothing_in_common_is_refused():
    report = LoadReport(missing=['head.fc.weight'], unexpected=['x'])
    with pytest.raises(ValueError, match='0 match'):
        check_weights(report)
