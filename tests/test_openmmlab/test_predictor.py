# Copyright (c) dms_razor contributors. All rights reserved.
import numpy as np
import pytest
from mmrazor.registry import MODELS, TASK_UTILS
from toy_models import algorithm


@pytest.fixture(scope='module')
def model():
    return MODELS.build(
        algorithm(
            mutator=dict(
                units={'backbone.layer3.0.conv1': dict(choices=[8, 16, 32])})))


def predictor(model, **settings):
    groups = {u.name: [u] for u in model.mutator.mutable_units}
    return TASK_UTILS.build(
        dict(
            dict(
                type='mmrazor.DMSMetricPredictor',
                search_groups=groups,
                handler_cfg=dict(type='mmrazor.CartsHandler', num_trees=20)),
            **settings))


@pytest.mark.parametrize('encoding', ['normal', 'onehot'])
def test_vectors_are_those_of_mmrazor(model, encoding):
    """Decoded by MMRazor's own inverse, which reads the units' choices."""
    predicted = predictor(model, encoding_type=encoding)
    for unit in model.mutator.mutable_units:
        # its inverse asks other units than ours for `choices`
        object.__setattr__(unit, 'choices', unit.candidate_choices)
    for kind in ('random', 'min', 'max'):
        choices = model.mutator.sample_choices(kind)
        vector = predicted.model2vector(choices)
        assert sum(vector['onehot_vector']) == len(choices)
        decoded = predicted.vector2model(predicted.preprocess([vector]))
        assert decoded == choices


def test_it_learns_which_network_is_better(model):
    """Scores that are the width of one unit, out of sixteen."""
    name = 'backbone.layer3.0.conv1'
    np.random.seed(0)
    samples = [model.mutator.sample_choices() for _ in range(60)]
    predicted = predictor(model)
    predicted.fit([predicted.model2vector(s) for s in samples],
                  np.array([float(s[name]) for s in samples]))
    scores = []
    for width in (8, 32):
        model.mutator.set_choices(dict(samples[0], **{name: width}))
        scores.append(predicted.predict(model)['accuracy/top1'])
    assert scores[0] + 4 < scores[1]


@pytest.mark.parametrize('settings', [
    dict(handler_ckpt='handler.joblib'),
    dict(train_samples='samples.pkl'),
])
def test_files_that_would_be_unpickled_are_refused(model, settings):
    with pytest.raises(ValueError, match='pickle'):
        predictor(model, **settings)
