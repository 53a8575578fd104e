# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch

from dms_razor.space import SliceSite
from dms_razor.subnet import SubnetError
from dms_razor.subnet.slicing import memory_format, slice_tensor


def test_grouped_input_axis_by_hand():
    # 4 filters in 2 groups, 3 inputs each; entry (o, i) is 10 o + i
    weight = torch.tensor([[10. * o + i for i in range(3)] for o in range(4)])
    keep = torch.tensor([True, False, True, False, True, True])
    site = SliceSite('weight', 1, torch.arange(6), groups=2)
    assert slice_tensor(weight, [site], keep).tolist() == [[0, 2], [10, 12],
                                                           [21, 22], [31, 32]]
    outputs = SliceSite('weight', 0, torch.tensor([0, 1, 0, 1]))
    keep[1], keep[0], keep[2] = True, False, True
    assert slice_tensor(weight, [outputs, site], keep).tolist() == [[11, 12],
                                                                    [31, 32]]


def test_an_entry_of_two_elements_needs_both():
    tensor = torch.arange(4.)
    index = torch.tensor([[0, 1], [0, -1], [1, -1], [-1, -1]])
    site = SliceSite('x', 0, index)
    keep = torch.tensor([True, False])
    assert slice_tensor(tensor, [site], keep).tolist() == [1, 3]


def test_uneven_groups_are_refused():
    site = SliceSite('conv.weight', 1, torch.arange(4), groups=2)
    keep = torch.tensor([True, True, True, False])
    with pytest.raises(
            SubnetError,
            match=r"groups of 'conv.weight' keep "
            r'\[2, 1\].*Declare'):
        slice_tensor(torch.zeros(2, 2), [site], keep)


def test_a_removed_slot_is_added_to_the_slot_before_it():
    # slots of 2 entries: the input, block 0's output, block 1's output
    tensor = torch.tensor([[1., 2, 10, 20, 100, 200]])
    index = torch.tensor([[0, -1], [1, -1], [0, 2], [1, 2], [0, 3], [1, 3]])
    fold = torch.tensor([-1, -1, 0, 1, 2, 3])
    site = SliceSite('conv.weight', 1, index, fold=fold)

    def kept(*blocks):
        keep = torch.tensor([False, True, *blocks])
        return slice_tensor(tensor, [site], keep).tolist()

    assert kept(True, True) == [[2, 20, 200]]
    assert kept(False, True) == [[22, 200]]
    assert kept(True, False) == [[2, 220]]
    assert kept(False, False) == [[222]]


def test_a_site_that_does_not_fit():
    for site in (SliceSite('w', 0,
                           torch.arange(3)), SliceSite('w', 2,
                                                       torch.arange(4)),
                 SliceSite('w', 0, torch.arange(8), groups=2),
                 SliceSite('w', 1, torch.arange(6), groups=3)):
        with pytest.raises(
                SubnetError,
                match="The site on axis .* of 'w' has "
                '.* tensor has shape .4, 2.. Use the network'):
            slice_tensor(torch.zeros(4, 2), [site], torch.ones(9).bool())


@pytest.mark.parametrize('kernel', [1, 3])
def test_channels_last_is_kept(kernel):
    weight = torch.randn(4, 6, kernel, kernel)
    last = weight.contiguous(memory_format=torch.channels_last)
    if kernel == 1:  # what .to() leaves, as both formats fit
        last = torch.empty(
            4, 6, 1, 1, memory_format=torch.channels_last).copy_(weight)
    site = SliceSite('weight', 1, torch.arange(6))
    keep = torch.tensor([True, False, True, True, False, False])
    found = slice_tensor(last, [site], keep)
    assert torch.equal(found, weight[:, keep])
    assert found.stride() == (3 * kernel**2, 1, 3 * kernel, 3)
    plain = slice_tensor(weight, [site], keep)
    assert plain.stride() == (3 * kernel**2, kernel**2, kernel, 1)


def test_memory_formats():
    for size, last in (((2, 3, 4, 5), torch.channels_last),
                       ((2, 3, 4, 5, 6), torch.channels_last_3d)):
        plain = torch.zeros(size)
        assert memory_format(plain) == torch.contiguous_format
        assert memory_format(plain.contiguous(memory_format=last)) == last
        assert memory_format(plain.mT) == torch.contiguous_format
    assert memory_format(torch.zeros(4)) == torch.contiguous_format
    # one channel: nothing tells them apart
    assert memory_format(torch.zeros(2, 1, 4, 4)) == torch.contiguous_format
