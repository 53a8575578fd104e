# Copyright (c) dms_razor contributors. All rights reserved.
"""Masks cut once for all layers, and where they are read."""
import copy

import pytest
import torch
from torch.nn import functional as F
from toy_nets import make_search, plain_data, plain_net

from dms_razor.core.layout import Layout, Unit
from dms_razor.masking.input_mask import InputMask
from dms_razor.masking.masks import Cuts, Masks, MaskSource

LAYOUT = Layout([Unit('a', 'width', 4), Unit('d', 'depth', 3),
                 Unit('b', 'width', 3, groups=2)])  # yapf: disable
INDICES = dict(
    whole=torch.arange(4),
    part=torch.arange(1, 3),
    across=torch.arange(2, 6),
    scattered=torch.tensor([8, 7, 8, 12]),
    partly=torch.tensor([9, -1, 10, -1]),
    everywhere=torch.tensor([0, 12, -1]),
    met=torch.tensor([[0, 7], [1, 8], [1, -1]]))


def flat():
    """Thirteen masks that require a gradient."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(
        13, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize('name', INDICES)
@pytest.mark.parametrize('cut', (True, False))
def test_a_vector_is_the_indexed_masks(name, cut):
    index, masks = INDICES[name], flat()
    cuts = Cuts(LAYOUT) if cut else None
    found = InputMask(0, index, cuts=cuts).vector(Masks(masks, cuts))
    expected = torch.cat([masks, masks.new_ones(1)])[index]
    expected = expected if expected.dim() == 1 else expected.prod(-1)
    weight = torch.randn_like(expected)
    assert found.equal(expected)
    assert torch.allclose(*(torch.autograd.grad((one * weight).sum(), masks)[0]
                            for one in (found, expected)))


def test_all_pieces_and_products():
    masks, cuts = flat(), Cuts(LAYOUT)
    cut = Masks(masks, cuts)
    assert cuts.sizes == (4, 1, 1, 1, 6)
    assert cut.run(4, 1).equal(masks[4:5]) and cut.run(5, 3).equal(masks[5:8])
    assert torch.allclose(cut.product([4, 6]), masks[4:5] * masks[6:7])


def test_masks_are_cut_anew_where_they_have_to_be():
    now = [flat()]
    source = MaskSource(lambda: now[0], Cuts(LAYOUT))
    first = source()
    assert source() is first
    with torch.no_grad():
        assert source().run(0, 4).grad_fn is None
    assert source().run(0, 4).grad_fn is not None
    # Twice backward before an update, as with accumulated batches.
    for _ in range(2):
        source().run(0, 4).sum().backward()
    assert now[0].grad[:4].tolist() == [2.] * 4
    now[0] = flat()
    assert source().flat is now[0]
    with torch.inference_mode():
        source().run(7, 6)
    assert source().run(7, 6).grad_fn is not None
    now[0] = None
    assert source() is None


def test_a_copy_elsewhere_reads_the_same_masks():
    """The meta device stands for another one."""
    search = make_search(plain_net())
    bank = search.bank
    other = copy.deepcopy(search.model).to('meta')
    assert bank.masks.device.type == 'cpu'
    out = other(torch.zeros(2, 3, 8, 8, device='meta'))
    assert out.shape == (2, 4) and out.device.type == 'meta'


def test_masks_follow_the_network_itself(monkeypatch):
    """A search that is made before ``model.cuda()``, as MMEngine does."""
    search, told = make_search(plain_net()), []
    masked = [
        module for module in search.model.modules()
        if '_dms_masks' in vars(module)
    ]
    for module in masked:
        module._dms_masks.follow = told.append
    search.model.float()
    assert told == [torch.device('cpu')] * len(masked) and masked
    told.clear()
    copy.deepcopy(search.model).double()
    assert not told, 'a copy moves no masks'
    images, labels = plain_data()
    F.cross_entropy(search.model(images), labels).backward()
