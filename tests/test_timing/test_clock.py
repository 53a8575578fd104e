# Copyright (c) dms_razor contributors. All rights reserved.
"""Backends that compute what they time."""
import pytest
import torch
from torch import nn

from dms_razor.timing import clock
from dms_razor.timing.clock import Setting, runner, threads


@pytest.mark.parametrize('backend', clock.BACKENDS)
def test_a_runner_runs_the_network(backend):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(4, 3)
    seen = []

    def forward(model, x):
        seen.append(x.shape)
        return dict(scores=model(x))

    found = runner(model, [x], Setting(backend, 1), forward)()
    assert seen[-1] == (4, 3)
    if backend == 'onnxruntime':
        torch.testing.assert_close(
            torch.from_numpy(found[0]),
            model(x).detach())


def test_a_network_that_onnx_cannot_hold():

    class Odd(nn.Module):

        def forward(self, x):
            return torch.linalg.eigvals(x).real

    with pytest.raises(clock.TimingError, match="Odd cannot be.*'torch'"):
        runner(Odd(), [torch.eye(3)], Setting('onnxruntime'),
               lambda model, x: model(x))


def test_settings():
    before = torch.get_num_threads()
    with threads(Setting('torch', 3)):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    told = Setting('onnxruntime', 2).describe()
    assert told['threads'] == 2 and 'onnxruntime' in told['versions']
    for wrong in (dict(backend='tensorrt'), dict(threads=0)):
        with pytest.raises(ValueError, match='tensorrt|0 threads'):
            Setting(**wrong)
