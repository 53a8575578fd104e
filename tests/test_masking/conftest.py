# Copyright (c) dms_razor contributors. All rights reserved.
"""How many threads loops run on."""
import pytest
import torch


@pytest.fixture
def with_threads(monkeypatch):
    """Sets them, also for little work, and sets them back."""
    from dms_razor.masking import compiled
    before = torch.get_num_threads()

    def use(threads):
        monkeypatch.setattr(compiled, 'LEAST', 0)
        torch.set_num_threads(threads)

    yield use
    torch.set_num_threads(before)
