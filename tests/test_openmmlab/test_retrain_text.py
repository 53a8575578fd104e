# Copyright (c) dms_razor contributors. All rights reserved.
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dms_razor.openmmlab.retrain import _formatted, assignment, comment
from dms_razor.subnet import SubnetError

ATOMS = st.none() | st.booleans() | st.integers() | st.text(
    max_size=30) | st.floats(allow_nan=False)
VALUES = st.recursive(
    ATOMS, lambda parts: st.lists(parts, max_size=6) | st.tuples(parts) | st.
    dictionaries(st.text(max_size=12) | st.integers(), parts, max_size=6))


@given(VALUES)
def test_python_reads_back_the_same(value):
    scope = {}
    exec(assignment('x', value), scope)
    assert scope['x'] == value and type(scope['x']) is type(value)


def test_files_are_laid_out():
    value = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=50, out_indices=(3, )),
        head=dict(type='LinearClsHead', topk=(1, 5), loss=None))
    text = _formatted([comment('A note.'), assignment('model', value)])
    assert text.startswith("# A note.\nmodel = dict(\n    type='ImageCl")
    assert max(map(len, text.splitlines())) < 80
    scope = {}
    exec(text, scope)
    assert scope['model'] == value


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=6))
@example({'º': None})
@settings(max_examples=20, deadline=None)
def test_laying_out_changes_nothing(value):
    scope = {}
    exec(_formatted([assignment('x', value)]), scope)
    assert scope['x'] == value and list(scope['x']) == list(value)


def test_not_finite():
    scope = {}
    exec(assignment('x', [math.inf, -math.inf, math.nan]), scope)
    assert scope['x'][:2] == [math.inf, -math.inf]
    assert math.isnan(scope['x'][2])


def test_what_is_no_text():
    with pytest.raises(
            SubnetError,
            match=r'model.backbone\[1\].type is a '
            'type, which cannot be written .* registered names'):
        assignment('model', dict(backbone=[1, dict(type=int)]))


def test_comment():
    text = comment('word ' * 40)
    assert all(
        line.startswith('# word') and len(line) < 80
        for line in text.splitlines())
