# Copyright (c) dms_razor contributors. All rights reserved.
"""Calls a tool without a process of its own, which takes seconds to start."""
import logging
from types import SimpleNamespace


def call(load_tool, monkeypatch, capsys, name, *arguments):
    """Run ``tools/NAME.py ARGUMENTS``; returns returncode, stdout, stderr."""
    tool = load_tool(name)
    monkeypatch.setattr('sys.argv', [name, *map(str, arguments)])
    # Loggers of earlier tests hold streams that pytest has closed since.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    capsys.readouterr()
    error = ''
    try:
        code = tool.main() or 0
    except SystemExit as end:  # as Python does: a message goes to stderr
        code = end.code if isinstance(end.code, int) else 1
        error = '' if isinstance(end.code, int) else str(end.code)
    output = capsys.readouterr()
    return SimpleNamespace(
        returncode=code, stdout=output.out, stderr=output.err + error)
