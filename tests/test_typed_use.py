# Copyright (c) dms_razor contributors. All rights reserved.
"""Types of the public names, as mypy sees them in a user's code."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
USE = TESTS / 'typed_use.py'
WRONG = '''
from torch import nn
from dms_razor import Search
from dms_razor.subnet import count_params

search = Search(nn.Linear(1, 1), target=None)
count_params('a network')
search.export('subnet').nothing
'''


@pytest.fixture
def check(tmp_path):
    """``check(path)`` -> what mypy finds in it, our package untouched."""
    if importlib.util.find_spec('mypy') is None:
        pytest.skip('mypy is not installed: pip install mypy')

    def run(path):
        return subprocess.run([
            sys.executable, '-m', 'mypy', '--strict',
            '--follow-imports=silent', '--cache-dir', tmp_path / 'cache', path
        ],
                              cwd=tmp_path,
                              env={
                                  **os.environ, 'MYPYPATH': str(TESTS.parent)
                              },
                              capture_output=True,
                              text=True).stdout

    return run


def test_public_names_have_types_and_wrong_uses_are_found(check, tmp_path):
    """Without an error in the one, and with one for each line of the other."""
    assert check(USE).startswith('Success'), check(USE)
    (tmp_path / 'wrong.py').write_text(WRONG)
    found = check(tmp_path / 'wrong.py')
    for line, kind in ((6, 'arg-type'), (7, 'arg-type'), (8, 'attr-defined')):
        assert any(
            text.startswith(f'wrong.py:{line}: ') and kind in text
            for text in found.splitlines()), found


def test_what_is_used_there_is_there():
    """Its imports run, so that it cannot go stale where mypy is missing."""
    spec = importlib.util.spec_from_file_location('typed_use', USE)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
