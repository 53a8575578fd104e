# Copyright (c) dms_razor contributors. All rights reserved.
import json
import pickle

import pytest
from mmrazor.registry import MODELS
from mmrazor.structures import Candidates
from toy_models import algorithm

from dms_razor.errors import SubnetError
from dms_razor.openmmlab.candidates import (candidates_of, entries, read_state,
                                            write_state)


@pytest.fixture(scope='module')
def mutator():
    # With its scope: what ran before may have left another one.
    return MODELS.build(algorithm(type='mmrazor.DMS')).mutator


def state(mutator, **changed):
    """A state of two candidates, one of them scored."""
    pool = Candidates(
        [mutator.sample_choices('max'),
         mutator.sample_choices('min')])
    pool.set_resource(1, 17.25, 'score')
    return dict(
        epoch=3,
        candidates=pool,
        top_k_candidates=pool,
        samples=Candidates(),
        **changed)


def test_what_is_written_is_read(mutator, tmp_path):
    written = state(mutator)
    write_state(tmp_path / 'state.json', written)
    read = read_state(tmp_path / 'state.json', mutator)
    assert read['epoch'] == 3
    for name in ('candidates', 'top_k_candidates', 'samples'):
        assert isinstance(read[name], Candidates)
        assert read[name].data == written[name].data
    assert read['candidates'].subnets[1] == mutator.sample_choices('min')
    assert [*tmp_path.iterdir()] == [tmp_path / 'state.json']


def test_candidates_as_plain_dicts(mutator):
    pool = state(mutator)['candidates']
    one, other = entries(pool)
    assert one['choices'] == mutator.sample_choices('max')
    assert other['score'] == 17.25 and other['flops'] == -1
    assert candidates_of([one, other]).data == pool.data
    assert entries(Candidates()) == []


def changed(entry, **values):
    return dict(entry, choices=dict(entry['choices'], **values))


@pytest.mark.parametrize('change, message', [
    (lambda e: changed(e, **{'backbone.layer1': 'exec("x")'}), 'numbers'),
    (lambda e: changed(e, **{'backbone.layer1': 9}), 'from 0 to 2'),
    (lambda e: changed(e, **{'backbone.layer1': 1.5}), 'cannot keep 1.5'),
    (lambda e: changed(e, **{'__import__("os")': 1}), 'does not name'),
    (lambda e: dict(e, choices={'backbone.conv1': 8}), 'does not name'),
    (lambda e: dict(e, score='high'), 'numbers'),
    (lambda e: [1], 'does not name'),
])
def test_what_is_no_network_of_ours_is_refused(mutator, tmp_path, change,
                                               message):
    """MMRazor evaluates the text of the choices as Python."""
    path = tmp_path / 'state.json'
    write_state(path, state(mutator))
    content = json.loads(path.read_text())
    content['top_k_candidates'][1] = change(content['top_k_candidates'][1])
    path.write_text(json.dumps(content))
    with pytest.raises(SubnetError, match=message) as error:
        read_state(path, mutator)
    assert 'top_k_candidates[1]' in str(error.value)


def test_other_files_are_refused(mutator, tmp_path):
    path = tmp_path / 'search_epoch_1.pkl'
    path.write_bytes(pickle.dumps(dict(_epoch=1)))
    with pytest.raises(SubnetError, match='may run code'):
        read_state(path, mutator)
    for content in ('[]', '{}', '{"version": 1}', '{"version": 2}'):
        path.write_text(content)
        with pytest.raises(SubnetError, match='of version 1'):
            read_state(path, mutator)
    with pytest.raises(SubnetError, match='cannot be read'):
        read_state(tmp_path / 'none.json', mutator)
