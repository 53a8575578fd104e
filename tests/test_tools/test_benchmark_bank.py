# Copyright (c) dms_razor contributors. All rights reserved.
"""The tool runs and reports; how fast things are is not tested here."""
import json

import pytest
import torch
from in_process import call

from dms_razor.core import Bank


def test_keys_and_picture(load_tool, monkeypatch, capsys, tmp_path):
    threads = torch.get_num_threads()
    result = call(load_tool, monkeypatch, capsys, 'benchmark_bank', '--sizes',
                  300, 900, '--rounds', 2, '--json', '-', '--picture',
                  tmp_path / 'bank.png')
    torch.set_num_threads(threads)
    assert result.returncode == 0
    found = json.loads(result.stdout)
    assert [row['elements'] for row in found['sizes']] == [300, 900]
    assert all(row['ratio'] > 0 for row in found['sizes'])
    assert len(found['slope']) == 1
    assert (tmp_path / 'bank.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.parametrize('elements', [100, 5000])
def test_the_network_is_of_its_size_and_its_ratios_move(
        load_tool, elements, monkeypatch):
    tool = load_tool('benchmark_bank')
    layout, resource = tool.network(elements)
    assert layout.E == elements
    # by hand: each width with the next one, the last with the first
    wide = [unit for unit in layout.units if unit.kind == 'width']
    sizes = [unit.size for unit in wide]
    assert resource.supernet() == sum(
        a * b for a, b in zip(sizes, sizes[1:] + sizes[:1]))
    assert resource.minimum() < .1 * resource.supernet()
    banks = []

    class Noted(Bank):

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            banks.append(self)

    monkeypatch.setattr(tool, 'Bank', Noted)
    update, units = tool.updater(elements)
    for _ in range(4):
        assert update() > 0
    bank, = banks
    assert units == layout.U and bank.updates == 4
    cost = resource(bank.counts(), bank.resource_masks())
    assert float(cost) == pytest.approx(.7 * resource.supernet(), rel=1e-5)
