# Copyright (c) dms_razor contributors. All rights reserved.
"""A bench runs what its jobs build, in turns."""
import torch
from torch import nn

from dms_razor.timing import bench
from dms_razor.timing.bench import Here, Job
from dms_razor.timing.clock import Setting


def test_jobs_are_built_and_take_turns(monkeypatch):
    seen = []

    def job(name, trained=False):

        def forward(model, x):
            seen.append((name, torch.get_num_threads()))
            return model(x)

        return Job(name, lambda: (nn.Identity(), [torch.zeros(1)], forward),
                   trained)

    def interleaved(runs, rounds):
        for _ in range(rounds):
            for run in runs:
                run()
        return [dict(ms=1., spread=0.) for _ in runs]

    monkeypatch.setattr(bench, 'interleaved', interleaved)
    before = torch.get_num_threads()
    here = Here(Setting('torch', 2), 3)
    assert len(here([job('a'), job('b')])) == 2
    assert seen == [('a', 2), ('b', 2)] * 3
    del seen[:]
    here([job('whole', True), job('other', True)])
    assert seen == [('whole', 2), ('other', 2)] * 30
    assert torch.get_num_threads() == before
    assert here.describe() == Setting('torch', 2).describe()
