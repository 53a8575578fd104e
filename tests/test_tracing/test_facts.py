# Copyright (c) dms_razor contributors. All rights reserved.
import torch

from dms_razor.tracing.facts import Facts
from dms_razor.tracing.labels import Variables


def facts():
    """Empty facts and their variables."""
    variables = Variables()
    return Facts(variables), variables


def test_a_second_use_of_a_weight_merges_its_channels():
    found, variables = facts()
    a, b = variables.new(3), variables.new(3)
    found.axis('conv.weight', 1, a, reads=False)
    found.axis('conv.weight', 1, b, reads=True)
    assert variables.classes()[b].tolist() == a.tolist()
    assert found.axes['conv.weight', 1].reads


def test_a_weight_that_also_reads_a_constant_stays():
    found, variables = facts()
    a = variables.new(3)
    found.axis('conv.weight', 1, a)
    found.axis('conv.weight', 1, torch.tensor([0, int(a[1]), 0]))
    assert set(variables.fixed(variables.classes())) == {1, 3}


def test_a_weight_of_two_widths_stays():
    found, variables = facts()
    a, b = variables.new(4), variables.new(2)
    found.axis('norm.weight', 0, a)
    found.axis('norm.weight', 0, b)
    found.finish()
    fixed = variables.fixed(variables.classes())
    assert set(fixed) == {1, 2, 3, 4, 5, 6}
    assert set(fixed.values()) == {'"norm.weight" is used in several widths'}


def test_tensors_without_a_name_carry_nothing():
    found, variables = facts()
    found.axis(None, 0, variables.new(2))
    assert not found.axes


def test_a_layer_makes_the_same_channels_each_time():
    found, variables = facts()
    first = found.outputs('conv.weight', 'conv', 4)
    found.axis('conv.weight', 0, first)
    assert torch.equal(found.outputs('conv.weight', 'conv', 4), first)
    assert len(found.producers) == 1


def test_entries_of_a_parameter_are_labelled_once():
    found, variables = facts()
    weight = torch.ones(2, 3)
    first = found.entries('scale', weight)
    assert first.shape == (2, 3) and len(first.unique()) == 6
    assert found.entries('scale', weight) is first


def test_a_tensor_used_as_weight_and_by_entry_stays():
    found, variables = facts()
    axis = variables.new(2)
    found.axis('fc.weight', 0, axis)
    entries = found.entries('fc.weight', torch.ones(2, 3))
    found.finish()
    fixed = set(variables.fixed(variables.classes()))
    assert fixed == set(axis.tolist()) | set(entries.flatten().tolist())


def test_whatever_is_not_understood_stays_whole():
    found, variables = facts()
    found.whole['fc.weight'] = 'because'
    axis = variables.new(2)
    found.axis('fc.weight', 0, axis)  # also when it is understood later
    found.finish()
    assert variables.fixed(variables.classes()) == {1: 'because', 2: 'because'}


def test_equal_pieces_of_a_split_are_parts():
    found, variables = facts()
    found.split('net', list(variables.new(6).chunk(3)), 'why')
    partition, = found.partitions
    assert partition.labels.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert [len(p.labels) for p in found.pieces] == [2, 2, 2]
    found.split('net', list(variables.new(6).split([2, 4])), 'why')
    assert len(found.partitions) == 1 and len(found.pieces) == 5


def test_equal_cuts_of_one_vector_are_parts():
    found, variables = facts()
    whole = variables.new(6)
    for piece in (whole[:2], whole[2:4], whole[2:4], whole[3:]):
        found.cut('net', whole, piece, 'why')
    partition, = found.partitions
    assert partition.labels.tolist() == [[1, 2], [3, 4]]
