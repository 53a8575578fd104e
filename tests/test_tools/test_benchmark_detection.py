# Copyright (c) dms_razor contributors. All rights reserved.
"""The table of latencies that a detector's benchmark searches under."""
from types import SimpleNamespace

import pytest

from dms_razor.core.latency import LatencyError


@pytest.fixture
def tool(load_tool):
    return load_tool('benchmark_detection')


def test_a_table_of_other_threads_is_refused(tool, tmp_path, monkeypatch):
    path = tmp_path / 'latency.json'
    path.write_text('{"coefficients": 0}')
    monkeypatch.setattr(
        tool, 'read_table',
        lambda path: dict(setting=dict(threads=2), checksum='abc'))
    recipe = SimpleNamespace(latency_table=path)
    assert tool.measure_table(recipe, 2) == 'abc'
    with pytest.raises(tool.SettingsError, match='measured with 2 threads'):
        tool.measure_table(recipe, 1)


def test_another_file_is_no_table_and_stays(tool, tmp_path):
    path = tmp_path / 'latency.json'
    path.write_text('{"coefficients": 0}')
    with pytest.raises(LatencyError, match='no table of latencies'):
        tool.measure_table(SimpleNamespace(latency_table=path), 1)
    assert path.read_text() == '{"coefficients": 0}'


def test_results_of_another_table_are_kept_apart(tool, tmp_path):
    work = tmp_path / 'work'
    tool.keep_apart(work, dict(latency_table='abc'))
    (work / tool.SEARCHED).write_text('{}')
    tool.keep_apart(work, dict(latency_table='abc'))
    with pytest.raises(tool.SettingsError, match='latency_table abc, not abd'):
        tool.keep_apart(work, dict(latency_table='abd'))
