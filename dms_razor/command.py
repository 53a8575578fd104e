# Copyright (c) dms_razor contributors. All rights reserved.
"""``dms-razor COMMAND …``: the tools, behind one command.

A command is a script of the folder ``tools``, which lies beside the package in
a source tree and in ``.mim`` of an installed one.
"""
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from .errors import MissingPackageError, nearest
from .version import __version__

PACKAGE = Path(__file__).resolve().parent


class Command(NamedTuple):
    """What a command runs, and what it is for."""
    tool: str
    arguments: str
    purpose: str


COMMANDS: Dict[str, Command] = {
    'space':
    Command('show_space', 'CONFIG',
            'what can be pruned, what not and why; nothing is trained'),
    'search':
    Command('train', 'CONFIG',
            'search the network of a config, and export what is found'),
    'export':
    Command(
        'export', 'SUBNET | CONFIG CHECKPOINT',
        'a subnet as ONNX, TorchScript or torch.export file; or the subnet '
        'of a checkpoint of a search'),
    'train':
    Command('train', 'SUBNET/retrain.py', 'train the subnet, or any config'),
    'test':
    Command('test', 'CONFIG CHECKPOINT', 'evaluate a network'),
    'sweep':
    Command('sweep', 'CONFIG CHECKPOINT --budgets 75% 50% 25%',
            'several budgets from one search, each trained, one curve'),
    'compare':
    Command('compare', 'EXPERIMENT --data FOLDER',
            'networks, methods and budgets over seeds, as tables'),
    'measure':
    Command('measure_latency', '…', 'latency tables of a device'),
    'report':
    Command('report', 'SUBNET [--score NAME=VALUE]',
            'the page report.html, with the accuracy that you have measured'),
    'quickstart':
    Command('quickstart', '', 'all of it on handwritten digits, in minutes'),
}
USAGE = '''\
usage: dms-razor COMMAND …

Search the widths and depths of a network under a budget, and go on with the
smaller network that comes out.

{commands}

From a config to a network on a device:

  dms-razor space my_search.py                  look before you train
  dms-razor search my_search.py                 search; writes SUBNET
  dms-razor train SUBNET/retrain.py             train what was found
  dms-razor export SUBNET --checkpoint FILE     write SUBNET/subnet.onnx
  dms-razor report SUBNET --score "top-1=76.1"  the page for your colleagues

SUBNET is work_dirs/my_search/subnet. "dms-razor COMMAND --help" says more. A
loop of your own needs no command: from dms_razor import Search.'''


def tools_folder() -> Optional[Path]:
    """Where the scripts are; None in an installation without them."""
    for folder in (PACKAGE.parent / 'tools', PACKAGE / '.mim' / 'tools'):
        if (folder / '_launch.py').exists():
            return folder
    return None


def script_of(command: str, arguments: Sequence[str]) -> str:
    """The script that a command runs with such arguments.

    ``export`` of a config, with a checkpoint, cuts the subnet out; of a subnet
    it writes a file for another runtime.
    """
    first = next((word for word in arguments if not word.startswith('-')), '')
    if command == 'export' and first.endswith('.py'):
        return 'export_subnet'
    return COMMANDS[command].tool


def find_script(tool: str) -> Optional[Path]:
    """The file or folder of a tool; None where it is not installed."""
    folder = tools_folder()
    paths = [] if folder is None else [folder / f'{tool}.py', folder / tool]
    return next((path for path in paths if path.exists()), None)


def run_script(script: Path) -> None:
    """Run a tool as the main program, under the name in ``sys.argv[0]``.

    ``runpy`` would put the file in the place of that name, and the tool's help
    would speak of ``train.py`` to those who called ``dms-razor search``.

    Args:
        script (Path): A file, or a folder with ``__main__.py``.
    """
    sys.path.insert(0, str(script.parent))
    if script.is_dir():
        sys.path.insert(0, str(script))
        script = script / '__main__.py'
    with _main_module(script) as names:
        exec(compile(script.read_bytes(), str(script), 'exec'), names)


@contextmanager
def _main_module(script: Path) -> Iterator[Dict]:
    """Names of a new ``__main__``, which processes that it starts find."""
    before, module = sys.modules['__main__'], ModuleType('__main__')
    module.__file__ = str(script)
    sys.modules['__main__'] = module
    try:
        yield vars(module)
    finally:
        sys.modules['__main__'] = before


def usage() -> str:
    """The help text, of the commands that are installed."""
    lines = [
        textwrap.fill(
            f'  {name:<12}{command.purpose}',
            width=79,
            subsequent_indent=' ' * 14) for name, command in COMMANDS.items()
        if find_script(command.tool)
    ]
    return USAGE.format(commands='\n'.join(lines))


def main(argv: Optional[List[str]] = None) -> None:
    """Run a command; ends as its script does.

    Args:
        argv (list[str], optional): By default that of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ('-h', '--help', 'help'):
        print(usage())
        return
    if argv[0] == '--version':
        print(f'dms_razor {__version__}')
        return
    name, arguments = argv[0], argv[1:]
    if name not in COMMANDS:
        sys.exit(f'dms-razor has no command "{name}"'
                 f'{nearest(name, COMMANDS)}: it has {", ".join(COMMANDS)}')
    tool = script_of(name, arguments)
    script = find_script(tool)
    if script is None:
        sys.exit(f'dms-razor {name} needs the tool "{tool}", which this '
                 'installation lacks: install dms_razor from its source tree '
                 'by "pip install ."')
    sys.argv = [f'dms-razor {name}', *arguments]
    try:
        run_script(script)
    except MissingPackageError as error:
        sys.exit(f'dms-razor {name}: {error}')


if __name__ == '__main__':
    main()
