# Copyright (c) dms_razor contributors. All rights reserved.
"""Install a wheel of this project beside several torch versions, and use it.

Makes a virtual environment for each version and each installer, installs what
docs/en/get_started.md says, runs tools/_installed.py in it and prints a table:
what is not run here is not claimed there. Each environment takes several GB
and is removed when its row is written. Where wheels lie on a disk, name their
folder to both installers: PIP_FIND_LINKS and UV_FIND_LINKS.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple

REPO = Path(__file__).resolve().parents[1]
CHECK = REPO / 'tools' / '_installed.py'
INSTALLERS = ('pip', 'uv')
#: What tools/_installed.py prints before each thing that works.
OK = 'ok: '


class Row(NamedTuple):
    """What came of one environment.

    Attributes:
        installer (str): pip or uv.
        versions (dict): Version by package, of those that count.
        plain (str): 'works', or what went wrong without OpenMMLab.
        openmmlab (str): The same with it; empty where it was not tried.
    """
    installer: str
    versions: Dict[str, str]
    plain: str
    openmmlab: str = ''


class Environment:
    """A virtual environment and the installer that fills it.

    Args:
        folder (Path): Where it is made; must not exist.
        python (str): The interpreter.
        installer (str): One of ``INSTALLERS``.
    """

    def __init__(self, folder: Path, python: str, installer: str) -> None:
        self.folder, self.installer = folder, installer
        self.log = folder.with_suffix('.log')
        self.python = folder / 'bin' / 'python'
        if installer == 'uv':
            self.run('uv', 'venv', '--python', python, folder)
        else:
            self.run(python, '-m', 'venv', folder)

    def run(self, *command: object) -> str:
        """Run it in an empty folder, without our source tree; its output.

        Raises:
            RuntimeError: It failed; with its last line.
        """
        environ = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        environ.setdefault('OMP_NUM_THREADS', '1')
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run([str(part) for part in command],
                                  cwd=empty,
                                  env=environ,
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT,
                                  text=True)
        with open(self.log, 'a', encoding='utf-8') as log:
            print('$', *command, done.stdout, sep='\n', file=log)
        if done.returncode:
            lines = done.stdout.strip().splitlines() or ['no output']
            raise RuntimeError(f'{lines[-1]} ({self.log})')
        return done.stdout

    def install(self, *requirements: str) -> None:
        """Install these together."""
        if self.installer == 'uv':
            self.run('uv', 'pip', 'install', '--python', self.python,
                     *requirements)
        else:
            self.run(self.python, '-m', 'pip', 'install', *requirements)

    def check(self, part: str) -> str:
        """Run a part of tools/_installed.py: 'works', or what went wrong."""
        try:
            self.run(self.python, CHECK, part)
        except RuntimeError as error:
            return f'fails: {error}'
        return 'works'

    def versions(self) -> Dict[str, str]:
        """Version by package, of those that are there."""
        found = self.run(self.python, CHECK, 'versions')
        return dict(line.split(' ') for line in found.splitlines())


def torch_requirements(version: str) -> List[str]:
    """What installs this torch; ``newest`` is not pinned.

    Torch below 2.3 was built for NumPy 1 and does not say so itself.
    """
    if version == 'newest':
        return ['torch']
    old = tuple(map(int, version.split('.')[:2])) < (2, 3)
    return [f'torch=={version}'] + (['numpy<2'] if old else [])


def try_out(env: Environment, torch: str, wheel: Path, openmmlab: bool) -> Row:
    """Install and check, first alone and then beside OpenMMLab."""
    needed = torch_requirements(torch)
    try:
        env.install(*needed, str(wheel))
    except RuntimeError as error:
        return Row(env.installer, {'torch': torch},
                   f'does not install: {error}')
    row = Row(env.installer, env.versions(), env.check('plain'))
    if not openmmlab:
        return row
    # the torch that is there stays: else 'newest' could become an older one
    pinned = [f'torch=={row.versions["torch"]}', *needed[1:]]
    try:
        env.install(*pinned, 'torchvision', 'mmcv-lite<2.1',
                    f'{wheel}[mim,optional]')
    except RuntimeError as error:
        return row._replace(openmmlab=f'does not install: {error}')
    return row._replace(
        versions=env.versions(), openmmlab=env.check('openmmlab'))


def table(rows: List[Row]) -> str:
    """The rows as Markdown."""
    packages = list(dict.fromkeys(sum((list(r.versions) for r in rows), [])))
    cells = [['installed with', *packages, 'plain Python', 'with OpenMMLab']]
    cells.append(['---'] * len(cells[0]))
    for row in rows:
        found = [row.versions.get(package, '') for package in packages]
        cells.append([row.installer, *found, row.plain, row.openmmlab])
    return '\n'.join(f'| {" | ".join(line)} |' for line in cells)


def build_wheel(folder: Path) -> Path:
    """A wheel of this source tree; a copy of it is built from."""
    source = folder / 'source'
    shutil.copytree(
        REPO,
        source,
        ignore=shutil.ignore_patterns('.git', '.venv*', 'build', '*.egg-info',
                                      'work_dirs', '__pycache__'))
    subprocess.run([
        sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w',
        str(folder), str(source)
    ], check=True)  # yapf: disable
    shutil.rmtree(source)
    wheel, = folder.glob('*.whl')
    return wheel


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--torch',
        nargs='+',
        default=['2.1.0', 'newest'],
        help='versions, or newest (default: 2.1.0 newest)')
    parser.add_argument(
        '--with',
        dest='installers',
        nargs='+',
        choices=INSTALLERS,
        default=list(INSTALLERS),
        help='(default: pip uv; uv has to be on PATH)')
    parser.add_argument(
        '--python',
        nargs='+',
        default=[sys.executable],
        help='interpreters (default: the one that runs this)')
    parser.add_argument(
        '--folder',
        type=Path,
        default=Path('work_dirs/install_matrix'),
        help='for environments and logs (default: %(default)s)')
    parser.add_argument(
        '--plain', action='store_true', help='leave OpenMMLab out')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if 'uv' in args.installers and shutil.which('uv') is None:
        sys.exit('uv is not on PATH: pip install uv, or leave it out: '
                 '--with pip')
    folder = args.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheel, rows = build_wheel(folder), []
    for number, (python, torch, installer) in enumerate(
        (p, t, i) for p in args.python for t in args.torch
            for i in args.installers):
        name = folder / f'{number}-{torch.replace(".", "_")}-{installer}'
        env = Environment(name, python, installer)
        rows.append(try_out(env, torch, wheel, not args.plain))
        shutil.rmtree(name)
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = table(rows)
    (folder / 'table.md').write_text(text + '\n', encoding='utf-8')
    print(f'\n{text}')
    sys.exit(
        any('fail' in row.plain + row.openmmlab or 'not install' in row.plain +
            row.openmmlab for row in rows))


if __name__ == '__main__':
    main()
