# Copyright (c) dms_razor contributors. All rights reserved.
import subprocess
import sys

import dms_razor.core


def test_core_needs_torch_alone():
    """In a process of its own: this one may have imported everything."""
    code = (
        'import sys\n'
        'for name in ("mmengine", "mmcv", "mmrazor", "mmpretrain", "scipy"):\n'
        '    sys.modules[name] = None\n'  # importing it raises ImportError
        'import dms_razor.core\n'
        'loaded = [m for m in sys.modules if m.startswith("mm")'
        ' and sys.modules[m]]\n'
        'print([m for m in loaded if m != "mmap"])')
    run = subprocess.run([sys.executable, '-c', code],
                         capture_output=True,
                         text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == '[]'


def test_public_names_exist():
    for name in dms_razor.core.__all__:
        assert getattr(dms_razor.core, name) is not None
