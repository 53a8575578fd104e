# Copyright (c) dms_razor contributors. All rights reserved.
"""Break searches and files on purpose, and look at what comes of it.

    python tools/faults kills --times 100 --keep 1 3
    python tools/faults files --times 100000

``kills`` ends short searches with SIGKILL at random moments and resumes them;
the last has to be the one that nobody disturbed, bit by bit. ``files`` reads
manifests, weights, checkpoints and states of searches in which structure or
bytes are wrong. Both end with 1 if something does not hold.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.faults import files, kills  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        'python tools/faults',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['kills', 'files'])
    parser.add_argument('--times', type=int, default=100)
    parser.add_argument(
        '--keep',
        type=int,
        nargs='+',
        default=[1, 3],
        help='values of max_keep_ckpts, for kills')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.what == 'files':
        rows = files.run(args.times, args.seed)
    else:
        rows = [kills.run(args.times, keep, args.seed) for keep in args.keep]
    print('| ' + ' | '.join(rows[0].cells()) + ' |')
    print('| ' + ' | '.join('---' for _ in rows[0].cells()) + ' |')
    for row in rows:
        print('| ' + ' | '.join(map(str, row.cells().values())) + ' |')
    sys.exit(any(not row.holds for row in rows))


if __name__ == '__main__':
    main()
