# Copyright (c) dms_razor contributors. All rights reserved.
"""Break searches and files on purpose, and look at what comes of it.

    python tools/faults kills --times 100 --keep 1 3
    python tools/faults kills --times 20 --how disk worker rank
    python tools/faults files --times 100000 --out files.json
    python tools/faults resumes

``kills`` ends short searches at random moments, by SIGKILL, a full disk, a
data loader whose worker vanishes or one of two ranks that dies, and resumes
them; the last has to be the one that nobody disturbed, bit by bit. ``files``
reads manifests, weights, checkpoints, tables and states of searches in which
structure or bytes are wrong. ``resumes`` goes on from five checkpoints of each
kind of search. All end with 1 if something does not hold; with ``--out`` the
first two note what they have found, and go on from there.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.faults import files, kills, resumes  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        'python tools/faults',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['kills', 'files', 'resumes'])
    parser.add_argument('--times', type=int, default=100)
    parser.add_argument(
        '--keep',
        type=int,
        nargs='+',
        default=[1, 3],
        help='values of max_keep_ckpts, for kills')
    parser.add_argument(
        '--how',
        nargs='+',
        choices=kills.HOW,
        default=['kill'],
        help='what happens, for kills')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='what was found so far')
    args = parser.parse_args()
    if args.what == 'files':
        rows = files.run(args.times, args.seed, args.out)
    elif args.what == 'resumes':
        rows = [resumes.run(kind) for kind in resumes.KINDS]
    else:
        rows = [
            kills.run(args.times, keep, args.seed, how, args.out)
            for how in args.how for keep in args.keep
        ]
    print('| ' + ' | '.join(rows[0].cells()) + ' |')
    print('| ' + ' | '.join('---' for _ in rows[0].cells()) + ' |')
    for row in rows:
        print('| ' + ' | '.join(map(str, row.cells().values())) + ' |')
    sys.exit(any(not row.holds for row in rows))


if __name__ == '__main__':
    main()
