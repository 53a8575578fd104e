# Copyright (c) dms_razor contributors. All rights reserved.
"""Each block of docs/en/extend.md runs as printed, and has an effect."""
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dms_razor import Search
from dms_razor.core import IMPORTANCES, METRICS, SELECTORS, Metric
from dms_razor.core.importance import make_importance
from dms_razor.subnet import build_subnet
from dms_razor.trace import trace
from dms_razor.tracing.rules import RULES
from dms_razor.tracing.rules.table import PROPERTIES, has

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'en' / 'extend.md'


@pytest.fixture(autouse=True)
def registries():
    """What a test adds is gone after it."""
    known = (IMPORTANCES, METRICS, SELECTORS, RULES, PROPERTIES)
    before = [dict(registry) for registry in known]
    yield
    for registry, entries in zip(known, before):
        registry.clear()
        registry.update(entries)


def blocks(heading):
    """The code below a heading of the page."""
    text = PAGE.read_text(encoding='utf-8').split(f'\n## {heading}\n')[1]
    return re.findall('```python\n(.*?)```', text.split('\n## ')[0], re.DOTALL)


def make_net():
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 4))


@pytest.fixture
def names():
    """What the page takes for granted."""
    return dict(model=make_net(), images=torch.randn(2, 1, 8, 8))


def run(search, steps=20):
    """Search for the class of a pattern in noise; the last loss."""
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.1)
    search.attach(optimizer)
    patterns = torch.randn(4, 1, 8, 8)
    for _ in range(steps):
        labels = torch.randint(4, (16, ))
        images = patterns[labels] + .3 * torch.randn(16, 1, 8, 8)
        loss = nn.functional.cross_entropy(search.model(images), labels)
        optimizer.zero_grad()
        search.loss(loss).backward()
        optimizer.step()
    return loss.item()


def check_export(search, folder):
    """The subnet meets the budget and is what the masked supernet is."""
    export = search.export(folder, picture=False)
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad(), search.masks('subnet'):
        torch.testing.assert_close(export.model.eval()(images),
                                   search.model.eval()(images))
    return export


def test_importance(names, tmp_path):
    code, registration = blocks('An importance')
    exec(code, names)
    search = names['search']
    run(search)
    seen = search.bank.importance.clone()
    assert (seen > 0).any()
    run(search, 1)
    assert (search.bank.importance >= seen).all(), 'the largest so far'
    check_export(search, tmp_path / 'subnet')

    exec(registration, names)
    rest = dict(example_inputs=names['images'], total_steps=20)
    layout = search.bank.layout
    mask, low, high = torch.tensor([[.5, .5], [2., 6.], [4., 1.]]).double()
    largest = make_importance('largest', layout)
    assert largest(mask, high, low).tolist() == [2., 6.]
    gradient = make_importance('gradient', layout, decay=.5)
    assert gradient(mask, high, low).tolist() == [3., 3.5]
    Search(make_net(), importance='gradient', decay=.5, **rest)
    with pytest.raises(ValueError, match='decay=0.5 has no effect'):
        Search(make_net(), importance='largest', decay=.5, **rest)


def test_selector(names, tmp_path):
    names.update(torch=torch, Search=Search)
    exec(blocks('A selector')[0], names)
    search = names['search']
    gates = search.bank.selector
    assert type(gates).__name__ == 'Gates'
    assert gates.numbers.shape == (28, ) and search.bank.layout.U == 2
    run(search)
    assert len(set(gates.numbers.tolist())) == 28, 'each moved by itself'
    assert gates.numbers.min() < 4
    run(search, 60)
    export = check_export(search, tmp_path / 'subnet')
    costs = export.report.to_dict()['macs']
    assert costs['counted'] <= search.target
    # of each unit those stay whose numbers are highest
    kept = search.keep()
    for place in (slice(0, 12), slice(12, 28)):
        numbers, stay = gates.numbers[place], kept[place]
        assert numbers[stay].min() >= numbers[~stay].max()
    state = search.state_dict()
    other = Search(
        make_net(), names['images'], target='50%', total_steps=20,
        selector='gates')  # yapf: disable
    other.load_state_dict(state)
    assert torch.equal(other.bank.selector.numbers, gates.numbers)


def test_metric_of_costs(names, tmp_path):
    names.update(Search=Search)
    exec(blocks('A resource metric')[0], names)
    search = names['search']
    whole = 9 * 12 + 9 * 12 * 16 + 16 * 4
    assert search.resource.supernet('weights') == whole
    assert search.target == .4 * whole
    run(search, 5)
    model = check_export(search, tmp_path / 'subnet').model
    left = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert .9 * search.target <= left <= search.target


def test_metric_of_a_value(names, tmp_path):
    sums, value = blocks('A resource metric')
    exec(sums, dict(names, Search=Search))
    names.update(Search=Search, METRICS=METRICS, Metric=Metric)
    names['model'] = make_net()
    exec(value, names)
    search = names['search']
    assert search.resource.supernet('delay') == pytest.approx(.2 + .28)
    run(search, 5)
    model = check_export(search, tmp_path / 'subnet').model
    left = sum(
        layer.out_channels for layer in model if isinstance(layer, nn.Conv2d))
    assert .95 * search.target <= .2 + .01 * left <= search.target


class Frac(nn.Module):

    def forward(self, x):
        return torch.frac(x)


def test_rule(tmp_path):
    model, images = make_net(), torch.randn(1, 1, 8, 8)
    model.insert(4, Frac())
    before = trace(model, images)
    assert '3' in {item.module for item in before.full_width}
    assert any('frac' in item.reason for item in before.full_width)
    code, = blocks('A rule for an operation')
    exec(code, {})
    search = Search(model, images, total_steps=20)
    assert search.space.count('width') == (2, 28)
    assert has('frac', 'idempotent')
    run(search, 3)
    check_export(search, tmp_path / 'subnet')


class Tokens(nn.Module):
    """Attention between an image's pixels."""

    def __init__(self, attention):
        super().__init__()
        self.stem, self.attention = nn.Linear(1, 32), attention
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.attention(self.stem(x.flatten(2).mT)).mean(1))


def test_adapter(tmp_path):
    layer, adapter = blocks('An adapter for a layer')
    names = dict(__name__='my_layers')
    exec(layer, names)
    net, images = Tokens(names['MyAttention']()), torch.randn(1, 1, 8, 8)
    search = Search(net, images, total_steps=20)
    kinds = {unit.kind for unit in search.space.units}
    search.close()
    exec(adapter, names)
    search = Search(net, images, total_steps=20, lr=5e-3, loss_weight=1.)
    assert {unit.kind for unit in search.space.units} == kinds | {'qk', 'v'}
    run(search)
    export = check_export(search, tmp_path / 'subnet')
    attention = export.model.attention
    assert type(attention).__name__ == 'SlimMyAttention'
    sizes = attention.heads, attention.qk_dims, attention.v_dims
    assert all(size < whole for size, whole in zip(sizes, (4, 8, 8)))
    rows = attention.heads * (2 * attention.qk_dims + attention.v_dims)
    assert attention.qkv.out_features == rows
    own = Tokens(names['MyAttention']())
    build_subnet(own, tmp_path / 'subnet' / 'subnet.json')
    assert (own.attention.heads, own.attention.qk_dims) == sizes[:2]
