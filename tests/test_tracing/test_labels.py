# Copyright (c) dms_razor contributors. All rights reserved.
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_razor.tracing.labels import (Variables, compress, core, expand_vector,
                                      varies_along, vector_along)


def test_expanded_labels_cost_next_to_nothing():
    labels = expand_vector(torch.arange(1, 5), 1, (2, 4, 3, 3))
    assert labels.shape == (2, 4, 3, 3)
    assert labels.untyped_storage().nbytes() == 4 * 8
    assert core(labels).shape == (1, 4, 1, 1)


def test_compress_finds_dimensions_that_do_not_vary():
    labels = expand_vector(torch.arange(4), 1, (2, 4, 3)).contiguous()
    assert core(labels).shape == (2, 4, 3)
    small = compress(labels)
    assert torch.equal(small, labels)
    assert core(small).shape == (1, 4, 1)


def test_vector_along():
    labels = expand_vector(torch.arange(4), 2, (2, 3, 4)).contiguous()
    assert vector_along(labels, 2).tolist() == [0, 1, 2, 3]
    assert vector_along(labels, -1).tolist() == [0, 1, 2, 3]
    assert vector_along(labels, 0) is None
    same = torch.full((2, 3), 7)
    assert vector_along(same, 1).tolist() == [7, 7, 7]


def test_varies_along():
    labels = torch.arange(6).view(1, 2, 3)
    assert varies_along(labels, [1]) and varies_along(labels, [0, 2])
    assert not varies_along(labels, [0])


def union_find(number, pairs):
    """Smallest member of each variable's component, one pair at a time."""
    group = list(range(number))
    for a, b in pairs:
        old, new = max(group[a], group[b]), min(group[a], group[b])
        group = [new if g == old else g for g in group]
    return group


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 30).flatmap(lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(1, n), st.integers(1, n)), max_size=40))
                               ), st.integers(1, 4))
def test_classes_are_connected_components(drawn, parts):
    number, pairs = drawn
    variables = Variables()
    variables.new(number)
    for chunk in np.array_split(np.array(pairs or [(1, 1)]), parts):
        left, right = torch.from_numpy(chunk).long().view(-1, 2).unbind(1)
        variables.merge(left, right)
    assert variables.classes().tolist() == union_find(number + 1, pairs)


def test_constants_are_merged_with_nothing():
    variables = Variables()
    a, b = variables.new(1), variables.new(1)
    variables.merge(torch.cat([a, b]), torch.tensor([0, 0]))
    assert variables.classes().tolist() == [0, 1, 2]


def test_reasons_follow_merges_and_the_first_one_wins():
    variables = Variables()
    x = variables.new(4)
    variables.fix(x[:1], 'first')
    variables.merge(x[:2], x[2:])
    variables.fix(x[2:3], 'second')
    variables.fix(x[3:], 'third')
    assert variables.fixed(variables.classes()) == {1: 'first', 2: 'third'}


def test_what_meets_a_constant_is_fixed_by_tie():
    variables = Variables()
    x, y = variables.new(3), variables.new(3)
    y[1], x[2] = 0, 0
    variables.tie(x, y, 'constant')
    assert variables.classes().tolist() == [0, 1, 2, 3, 1, 5, 6]
    assert variables.fixed(variables.classes()) == {
        2: 'constant',
        6: 'constant'
    }


def test_tie_broadcasts():
    """It failed with an IndexError, which became the reason of a module."""
    variables = Variables()
    x = variables.new(3)
    variables.tie(x, torch.zeros(1, dtype=torch.long), 'constant')
    fixed = variables.fixed(variables.classes())
    assert fixed == {1: 'constant', 2: 'constant', 3: 'constant'}
    y = variables.new(1)
    variables.tie(x, y, 'constant')
    assert variables.classes().tolist() == [0, 1, 1, 1, 1]


def test_fixing_constants_is_nothing():
    variables = Variables()
    variables.fix(torch.zeros(3, dtype=torch.long), 'no reason')
    assert variables.fixed(variables.classes()) == {}


def test_merged_pairs_are_noted_once():
    variables = Variables()
    first, second = variables.new(3), variables.new(3)
    variables.merge(first.repeat(2), second.repeat(2))
    pairs, = variables._merged
    assert pairs.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert variables.classes().tolist() == [0, 1, 2, 3, 1, 2, 3]
