# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/_processes.py: the same results, here or beside this process."""
import os
import time
from functools import partial

import pytest
import torch


@pytest.fixture(params=[1, 2])
def number(request):
    return request.param


def test_results_are_those_of_calls(load_tool, number):
    with load_tool('_processes').Processes(number, 'json') as processes:
        later = [processes.submit(divmod, 7, by) for by in (2, 3, 0)]
        process = processes.submit(os.getpid)
        threads = processes.submit(torch.get_num_threads)
        assert [one.result() for one in later[:2]] == [(3, 1), (2, 1)]
        assert later[0].result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            later[2].result()
        assert (process.result() == os.getpid()) == (number == 1)
        assert number == 1 or threads.result() == 1


def test_alone_it_runs_when_asked_and_once(load_tool):
    ran = []
    with load_tool('_processes').Processes(1, 'json') as processes:
        later = processes.submit(partial(ran.append, 1))
        assert not ran
        later.result(), later.result()
    assert ran == [1]


def test_what_was_not_begun_is_dropped_after_an_error(load_tool):
    """Nobody waits an hour for trainings after the first has failed."""
    with pytest.raises(ZeroDivisionError):
        with load_tool('_processes').Processes(2, 'json') as processes:
            first = processes.submit(divmod, 1, 0)
            rest = [processes.submit(time.sleep, .1) for _ in range(200)]
            first.result()
    assert any(one.cancelled() for one in rest)


def test_cores_are_counted(load_tool):
    assert 1 <= load_tool('_processes').cores() <= 4
