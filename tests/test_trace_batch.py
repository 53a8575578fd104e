# Copyright (c) dms_razor contributors. All rights reserved.
"""Example inputs of several samples: costs are those of one of them."""
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from toy_nets import Net, make_search, plain_net

from dms_razor import Search
from dms_razor.core import METRICS
from dms_razor.counting import Count
from dms_razor.subnet import (Manifest, SubnetError, build_subnet, count_macs,
                              count_params)


@pytest.fixture
def images():
    return torch.randn(3, 3, 8, 8)


def test_a_batch_as_example_input(images, tmp_path):
    search = Search(plain_net(), images, target='50%', total_steps=5)
    alone = make_search(plain_net())
    assert search.target == alone.target
    assert search.preflight().supernet == alone.preflight().supernet
    export = search.export(tmp_path / 'subnet', picture=False)
    other = alone.export(tmp_path / 'alone', picture=False)

    counted = count_macs(export.model, images[:1])
    assert export.manifest.macs['counted'] == counted.macs
    report = json.loads((tmp_path / 'subnet' / 'report.json').read_text())
    same = json.loads((tmp_path / 'alone' / 'report.json').read_text())
    assert report['macs'].pop('samples') == 3
    for notes in (report.pop('notes'), same.pop('notes')):
        note, = notes  # the largest difference depends on the input
        assert note.startswith('Self-check: 5 units on Net, 3 subnets in fl')
    assert report == same
    assert 'for each of the 3 samples of an input of 3×3×8×8' in (
        tmp_path / 'subnet' / 'report.md').read_text(encoding='utf-8')
    assert other.manifest.macs['counted'] == counted.macs


def test_its_manifest_is_checked(images, tmp_path):
    search = Search(plain_net(), images, target='50%', total_steps=5)
    search.export(tmp_path / 'subnet', picture=False)
    manifest = Manifest.load(tmp_path / 'subnet')
    built = build_subnet(Net(), manifest, tmp_path / 'subnet' / 'subnet.pth')
    assert count_params(built) == manifest.params['counted']
    build_subnet(Net().blocks, manifest, part='blocks')
    strided = Net()
    strided.stem.stride = (2, 2)
    with pytest.raises(SubnetError, match='MACs, its manifest says'):
        build_subnet(strided, manifest)


def test_words_as_example_input(tmp_path):
    """Whole numbers have samples too."""
    net = nn.Sequential(
        nn.Embedding(20, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    words = torch.randint(0, 20, (4, 7))
    search = Search(
        net, words, target='50%', total_steps=5, batch_size=len(words))
    assert search.preflight().supernet['macs'] == 7 * (16 * 32 + 32 * 5)
    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.manifest.macs['counted'] == count_macs(
        export.model, words[:1]).macs


class Hidden(nn.Module):
    """A layer whose result goes through NumPy, so that no graph has it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.from_numpy(self.first(x).detach().numpy()[:, ::-1].copy())
        return self.fc(self.second(x).mean((2, 3)))


def test_a_layer_that_no_graph_has_is_counted(images):
    search = Search(Hidden(), images[:1], total_steps=5)
    positions = images[0, 0].numel()
    assert search.space.counted['macs'].total == positions * (24 + 48) + 12


def test_what_could_not_be_exported_is_said_before_the_search(
        images, monkeypatch):
    """A count that misses a layer."""
    macs = METRICS['macs']

    def blind(model, *rest):
        found = macs.count(model, *rest).by_module
        rest = {name: n for name, n in found.items() if name != 'first'}
        return Count(sum(rest.values()), rest, 'a blind counter')

    monkeypatch.setitem(METRICS, 'macs', replace(macs, count=blind))
    with pytest.raises(SubnetError, match='first has 0 and should have'):
        Search(Hidden(), images[:1], total_steps=5)
