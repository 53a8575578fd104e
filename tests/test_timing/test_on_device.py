# Copyright (c) dms_razor contributors. All rights reserved.
"""What a clock makes of figures; the script that runs on a device."""
import pytest

from dms_razor.timing import on_device
from dms_razor.timing.on_device import interleaved


def test_the_slower_half_is_clipped_and_all_take_turns(monkeypatch):
    now, called = [0.], []
    monkeypatch.setattr(on_device.time, 'perf_counter', lambda: now[0])
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
    monkeypatch.setattr(on_device.time, 'perf_counter', lambda: now[0])

    def run():
        called.append(1)
        now[0] += 1e-4

    found, = interleaved([run], 3)
    assert found['ms'] == pytest.approx(.1) and len(called) == 2 + 3 * 20
