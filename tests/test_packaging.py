# Copyright (c) dms_razor contributors. All rights reserved.
"""What ``pip install`` and mim make of the source tree."""
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
BUILD = '''
import sys
from setuptools import build_meta
print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))
'''
# Python reads .pth files in site-packages alone. This reads those of a folder
# in PYTHONPATH, and puts what they name before an installed copy of us.
SITE = '''
import site
import sys
known = len(sys.path)
site.addsitedir({0!r})
sys.path[:] = [{0!r}] + sys.path[known:] + sys.path[:known]
'''


def normal(requirement):
    name = re.match('[A-Za-z0-9._-]+', requirement).group()
    return name.lower().replace('_', '-')


def lines(name):
    text = (REPO / 'requirements' / f'{name}.txt').read_text()
    stripped = (line.partition('#')[0].strip() for line in text.splitlines())
    return [line for line in stripped if line]


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of the source tree: building leaves files behind."""
    target = tmp_path_factory.mktemp('source') / 'tree'
    shutil.copytree(
        REPO,
        target,
        ignore=shutil.ignore_patterns('.git', '.venv', 'build', '*.egg-info',
                                      'work_dirs', '__pycache__'))
    return target


@pytest.fixture(scope='module')
def build(tree):
    """``build('wheel')`` -> path of the archive."""

    def run(kind):
        output = subprocess.run([sys.executable, '-c', BUILD, kind, 'dist'],
                                cwd=tree,
                                check=True,
                                capture_output=True,
                                text=True).stdout
        return tree / 'dist' / output.split()[-1]

    return run


@pytest.fixture
def install(build, tmp_path):
    """``install('editable')`` -> a folder for ``PYTHONPATH``."""

    def run(kind):
        site = tmp_path / 'site'
        subprocess.run([
            sys.executable, '-m', 'pip', 'install', '-q', '--no-deps',
            '--no-index', '--disable-pip-version-check', '--target', site,
            build(kind)
        ], check=True)  # yapf: disable
        (site / 'sitecustomize.py').write_text(SITE.format(str(site)))
        return site

    return run


def test_wheel_has_what_mim_looks_for(build):
    names = set(zipfile.ZipFile(build('wheel')).namelist())
    for folder in ('tools', 'configs'):
        wanted = {
            f'dms_razor/.mim/{path.relative_to(REPO).as_posix()}'
            for path in (REPO / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
        assert wanted and wanted <= names
    assert 'dms_razor/.mim/model-index.yml' in names
    assert 'dms_razor/core/topk.py' in names
    assert not any(re.match('(tests|tools|configs|docs)/', n) for n in names)


def test_installing_exchanges_neither_torch_nor_mmcv(build):
    wheel = zipfile.ZipFile(build('wheel'))
    name, = (n for n in wheel.namelist() if n.endswith('dist-info/METADATA'))
    required = re.findall('^Requires-Dist: (.*)$',
                          wheel.read(name).decode(), re.M)
    assert {'numpy', 'matplotlib', 'mmengine',
            'pytest'} <= {normal(line)
                          for line in required}
    always = {normal(line) for line in required if 'extra' not in line}
    assert always == {'numpy', 'matplotlib'}
    for line in required:
        assert normal(line) not in ('torch', 'torchvision', 'mmcv',
                                    'mmcv-full', 'mmcv-lite')


def test_source_archive_can_be_built_from(build):
    with tarfile.open(build('sdist')) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    for path in ('setup.py', 'pyproject.toml', 'model-index.yml', 'LICENSE',
                 'requirements/runtime.txt', 'requirements/tested.txt',
                 'tools/train.py', 'tools/dist_train.sh'):
        assert path in names, path
    configs = {
        p.relative_to(REPO).as_posix()
        for p in REPO.glob('configs/*/*')
    }
    assert {c for c in configs if c.endswith(('.py', '.yml'))} <= names


@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_mim_trains_and_tests(kind, tree, install, tmp_path, run_python,
                              tiny_config):
    """A config by its name alone, as mim finds those of the package."""
    (tree / 'configs' / 'mim_tiny.py').write_text(tiny_config.read_text())
    path = str(install(kind))
    mim = 'import sys\nfrom mim.cli import cli\ncli(sys.argv[1:])'
    train = run_python(
        mim, 'train', 'dms_razor', 'mim_tiny.py', '--gpus', '0', '--work-dir',
        'work', PYTHONPATH=path)  # yapf: disable
    assert 'Training finished successfully' in train.stdout, train.stderr
    checkpoint = str(tmp_path / 'work' / 'epoch_1.pth')
    test = run_python(
        mim, 'test', 'dms_razor', tiny_config, '--checkpoint', checkpoint,
        '--gpus', '0', PYTHONPATH=path)  # yapf: disable
    assert 'accuracy/top1' in test.stdout + test.stderr
    assert 'Testing finished successfully' in test.stdout, test.stderr


@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_a_tool_that_is_a_folder_runs(kind, install, run_python):
    """From the installed package, and beside the source tree."""
    site = install(kind)
    code = 'import runpy, sys; sys.argv.pop(0); runpy.run_path(' \
        "sys.argv[0], run_name='__main__')"
    tool = site / 'dms_razor' / '.mim' / 'tools' / 'zoo'
    result = run_python(code, tool, 'LeNet5', PYTHONPATH=str(site))
    assert result.stdout.startswith('LeNet5  '), result.stderr
    assert result.returncode == 0 and '3 width' in result.stdout
    code = 'from dms_razor.coverage import Row; print(Row.__module__)'
    result = run_python(code, PYTHONPATH=str(site))
    assert result.stdout.split() == ['tools.zoo.check'], result.stderr


def test_editable_install_imports_the_source_tree(install, tree, run_python):
    code = 'import dms_razor; print(dms_razor.__file__)'
    result = run_python(code, PYTHONPATH=str(install('editable')))
    assert result.stdout.strip() == str(tree / 'dms_razor' / '__init__.py')


def test_tested_versions_are_exact_and_complete():
    pins = lines('tested')
    for line in pins:
        assert re.fullmatch(
            r'[\w.-]+==[\w.]+(; python_version (<|>=) "3\.\d+")?', line), line
    names = {normal(line) for line in pins}
    for file in ('runtime', 'mminstall', 'optional', 'tests', 'docs'):
        assert {normal(line) for line in lines(file)} <= names, file
    assert {'torch', 'torchvision', 'mmcv-lite'} <= names


def test_model_index_lists_every_metafile():
    index = yaml.safe_load((REPO / 'model-index.yml').read_text())
    found = {
        p.relative_to(REPO).as_posix()
        for p in REPO.glob('configs/*/metafile.yml')
    }
    assert set(index['Import']) == found


def test_ci_runs_the_command_of_the_readme():
    command = 'bash tools/install.sh && .venv/bin/python -m pytest tests'
    assert f'```bash\n{command}\n```' in (REPO / 'README.md').read_text()
    assert command in (REPO / '.ci' / 'run').read_text().splitlines()
