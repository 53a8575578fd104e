# Copyright (c) dms_razor contributors. All rights reserved.
"""Compare networks, methods and budgets: one command for one table.

    python tools/compare scale_down --data FOLDER --seeds 0-9
    python tools/compare my_experiment.py --rows dms,even --dry-run
    python tools/compare my_experiment.py --table-only

EXPERIMENT is a Python file that says ``experiment = Experiment(...)``, or the
name of one in tools/compare/experiments. FOLDER holds train/CLASS/*.jpg and
test/CLASS/*.jpg (or png); without it the digits of scikit-learn are used. What
is finished is skipped, so the same command goes on after an interruption, and
several processes that run it share the work. See docs/en/compare.md.
"""
import sys
from pathlib import Path

# Run as a folder it is no package; from here on it is.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from tools.compare.command import main  # noqa: E402  isort: skip

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:], __doc__))
