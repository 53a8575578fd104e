# Copyright (c) dms_razor contributors. All rights reserved.
"""The original as the teacher: against the formula, and without a copy."""
import copy
from types import SimpleNamespace

import pytest
import torch
from language_nets import WORDS, Decoder
from torch import nn

from dms_razor import Search
from dms_razor.llm import Distillation


class Language(nn.Module):
    """A decoder that takes and returns what Hugging Face's do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = Decoder()

    def forward(self, input_ids, labels=None, attention_mask=None):
        return SimpleNamespace(logits=self.net(input_ids))


def by_hand(student, teacher, counts, heat):
    total, number = 0., 0
    for row in range(student.shape[0]):
        for place in range(student.shape[1]):
            if counts[row][place]:
                p = (teacher[row, place] / heat).softmax(-1)
                q = (student[row, place] / heat).softmax(-1)
                total += float((p * (p / q).log()).sum())
                number += 1
    return heat**2 * total / number


@pytest.mark.parametrize('heat', [1., 2.])
def test_against_the_formula(heat):
    teacher, logits = Language(), torch.randn(2, 7, 31)
    loss = Distillation(teacher=teacher, temperature=heat)
    with torch.no_grad():
        expected = teacher(WORDS).logits
    everything = torch.ones(2, 7)
    found = loss(logits, dict(input_ids=WORDS))
    assert float(found) == pytest.approx(
        by_hand(logits, expected, everything, heat), rel=1e-4)
    mask = torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 0, 0]])
    found = loss(logits, dict(input_ids=WORDS, attention_mask=mask))
    assert float(found) == pytest.approx(
        by_hand(logits, expected, mask, heat), rel=1e-4)
    labels = torch.where(mask > 0, WORDS, -100)
    shifted = torch.tensor([[1] * 6 + [0], [1, 1, 0, 0, 0, 0, 0]])
    found = loss(logits, dict(input_ids=WORDS, labels=labels))
    assert float(found) == pytest.approx(
        by_hand(logits, expected, shifted, heat), rel=1e-4)


def test_a_network_whose_weights_rest_is_its_own_teacher():
    net = Language().requires_grad_(False)
    original = copy.deepcopy(net)
    search = Search(
        net, dict(input_ids=WORDS[:1]), '70%', metric='params', total_steps=9)
    loss = Distillation(search)
    batch = dict(input_ids=WORDS)
    expected = original(**batch).logits
    assert torch.allclose(loss.logits(batch), expected, atol=1e-5)
    net.train()
    search.bank.ratios = torch.full_like(search.bank.ratios, .4)
    search.bank.refresh()
    logits = net(**batch).logits
    assert not torch.allclose(logits, expected, atol=1e-2)
    found = loss(logits, batch)
    assert found > 0 and net.training
    gradient, = torch.autograd.grad(found, search.bank.masks)
    assert gradient.abs().max() > 0, 'the masks learn from it'


def test_what_is_missing_is_told():
    with pytest.raises(ValueError, match='needs a teacher'):
        Distillation()
    net = Language()
    search = Search(
        net, dict(input_ids=WORDS[:1]), '70%', metric='params', total_steps=9)
    with pytest.raises(ValueError, match='give teacher='):
        Distillation(search)
    with pytest.raises(ValueError, match='temperature'):
        Distillation(teacher=net, temperature=0)
