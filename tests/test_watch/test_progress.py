# Copyright (c) dms_razor contributors. All rights reserved.
"""A bar in a terminal, a line now and then elsewhere."""
import builtins
import io

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.watch import Progress


class Terminal(io.StringIO):
    """Says that a person looks at it."""

    def isatty(self):
        return True


def shown(out, steps, **settings):
    """What a search of 30 steps writes in its first ones."""
    search = make_search(plain_net())
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    search.attach(optimizer).show_progress(out=out, **settings)
    train(search, optimizer, plain_data(), steps)
    return search, out.getvalue()


def test_first_and_last_step_have_a_line():
    search, text = shown(io.StringIO(), 30, seconds=1e9)
    first, last = text.splitlines()
    assert first.startswith('search 1/30  loss ')
    assert last.startswith('search 30/30  ') and 'decides: ' in last
    asked = f'asked {search.current_target / search.status().supernet:.1%}'
    assert asked == 'asked 50.0%' and asked in last


def test_a_line_every_few_seconds(monkeypatch):
    clock = iter(range(1000))  # a second a step
    monkeypatch.setattr('time.monotonic', lambda: next(clock))
    _, text = shown(io.StringIO(), 25, seconds=10)
    assert [line.split()[1]
            for line in text.splitlines()] == ['1/30', '11/30', '21/30']
    assert text.splitlines()[1].endswith(' 10 s')


def test_a_bar_in_a_terminal():
    _, text = shown(Terminal(), 30)
    assert '\r' in text and '30/30' in text and '100%' in text
    assert 'decides: ' in text


def test_lines_where_tqdm_is_not_installed(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'tqdm':
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    _, text = shown(Terminal(), 30, seconds=1e9)
    assert len(text.splitlines()) == 2 and '\r' not in text


def test_seconds_are_a_number():
    with pytest.raises(ValueError, match='seconds between two lines .* -1'):
        Progress(seconds=-1)
