# Copyright (c) dms_razor contributors. All rights reserved.
"""What a clock makes of figures; backends that compute what they time."""
import pytest
import torch
from torch import nn

from dms_razor.timing import clock
from dms_razor.timing.clock import Setting, interleaved, runner, threads


def test_the_slower_half_is_clipped_and_all_take_turns(monkeypatch):
    now, called = [0.], []
    monkeypatch.setattr(clock.time, 'perf_counter', lambda: now[0])
    slow = iter([9., 9., 1., 1.2, 50., 1.4, 70.])
    steady = iter([9., 9., 3., 3., 3., 3., 3.])

    def take(name, seconds):

        def run():
            called.append(name)
            now[0] += next(seconds)

        return run

    first, second = interleaved([take('a', slow), take('b', steady)], 5)
    assert first == pytest.approx(dict(ms=1200., spread=.2 / 1.2))
    assert second == pytest.approx(dict(ms=3000., spread=0))
    assert called[4:] == ['a', 'b'] * 5


def test_what_is_short_is_called_often(monkeypatch):
    now, called = [0.], []
    monkeypatch.setattr(clock.time, 'perf_counter', lambda: now[0])

    def run():
        called.append(1)
        now[0] += 1e-4

    found, = interleaved([run], 3)
    assert found['ms'] == pytest.approx(.1) and len(called) == 2 + 3 * 20


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
