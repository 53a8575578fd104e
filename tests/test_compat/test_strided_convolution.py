# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from torch import nn

from dms_razor import Search
from dms_razor.compat import strided_convolution as fault


def net(channels=8):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Conv2d(channels, 8, 1, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def test_which_layers():
    assert fault.risky_layers(net(7)) == ['2']
    assert fault.risky_layers(net(8)) == []
    other = nn.Sequential(nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 1))
    assert fault.risky_layers(other) == []


@pytest.mark.parametrize('version, affected', [
    ('2.13.0+cpu', True),
    ('2.13.1', True),
    ('2.12.0', False),
    ('2.1.2', False),
    ('2.14.0', False),
])
def test_which_versions(version, affected):
    assert fault.is_affected(version) == (
        affected and torch.backends.mkldnn.is_available())


@pytest.mark.parametrize('affected', [True, False])
def test_an_export_tells_it(tmp_path, monkeypatch, affected):
    monkeypatch.setattr(fault, 'is_affected', lambda: affected)
    search = Search(net(), torch.zeros(1, 3, 8, 8), .5, total_steps=9)
    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.model[2].in_channels < 8
    told = [note for note in export.report.notes if 'can end the' in note]
    assert len(told) == affected
    assert all(note.startswith('2: ') and 'least=8' in note for note in told)


def test_what_is_proposed_is_sound(run_python):
    """The canary: contiguous images, as many steps as used to be enough."""
    done = run_python('''
import torch
conv = torch.nn.Conv2d(7, 16, 1, 2, bias=False)
x = torch.randn(64, 16, 16, 7).permute(0, 3, 1, 2).contiguous()
x.requires_grad_()
for _ in range(20):
    conv(x).square().sum().backward()
print('alive')
''')
    assert done.stdout.strip() == 'alive', done.stderr
