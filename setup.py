# Copyright (c) dms_razor contributors. All rights reserved.
"""Packaging. ``pip install .`` makes ``mim train dms_razor CONFIG`` work.

OpenMMLab's mim looks for ``dms_razor/.mim/{tools,configs}`` in site-packages.
They are put there while the package is built; the source tree stays clean.
"""
import shutil
from pathlib import Path
from typing import List

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = ('tools', 'configs', 'model-index.yml')
LAUNCHER = '''# Written by an editable install: runs the real script.
import runpy
import sys

sys.path[0] = {folder!r}
runpy.run_path({script!r}, run_name='__main__')
'''


class BuildWithMim(build_py):
    """``build_py`` that adds the folder in which mim looks."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            install = self.get_finalized_command('install')
            self._write_links(Path(install.install_lib))
        else:
            self._copy(Path(self.build_lib))

    @staticmethod
    def _copy(target: Path) -> None:
        mim = target / 'dms_razor' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)  # of an earlier build
        mim.mkdir(parents=True)
        ignore = shutil.ignore_patterns('__pycache__', '*.pyc')
        for name in MIM:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, mim / name, ignore=ignore)
            elif source.exists():
                shutil.copy(source, mim / name)

    @staticmethod
    def _write_links(target: Path) -> None:
        """For an editable install, whose wheel can hold no symbolic links.

        The folder in site-packages has no ``__init__.py``, so Python takes
        the package from the source tree. Configs and tools that are added
        later are found by name after the next install, by path at once.
        """
        mim = target / 'dms_razor' / '.mim'
        tools = ROOT / 'tools'
        for script in (*tools.glob('*.py'), *tools.glob('*/__main__.py')):
            link = mim / script.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.write_text(
                LAUNCHER.format(folder=str(script.parent), script=str(script)))
        for config in sorted((ROOT / 'configs').rglob('*.py')):
            link = mim / config.relative_to(ROOT)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.write_text(f'_base_ = {str(config)!r}\n')


def read_version() -> str:
    scope: dict = {}
    exec((ROOT / 'dms_razor' / 'version.py').read_text(), scope)
    return scope['__version__']


def requirements(name: str) -> List[str]:
    """The lines of ``requirements/NAME.txt`` without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    lines = [line.partition('#')[0].strip() for line in lines]
    return [line for line in lines if line]


EXTRAS = {
    'mim': requirements('mminstall'),
    'fast': requirements('fast'),
    'optional': requirements('optional'),
    'tests': requirements('tests'),
    'docs': requirements('docs'),
}
#: What only the coverage of other packages tries; no part of 'all'.
COVERAGE = requirements('coverage')
#: Language models; MMPretrain's multimodal models want an older transformers.
LLM = requirements('llm')
README = ROOT / 'README.md'

setup(
    name='dms_razor',
    version=read_version(),
    description='Differentiable Model Scaling for PyTorch and MMRazor',
    long_description=README.read_text() if README.exists() else '',
    long_description_content_type='text/markdown',
    author='dms_razor contributors',
    license='Apache-2.0',
    keywords='pruning, architecture search, model compression, MMRazor',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    # said aloud, so that an editable install is a plain path entry
    package_dir={'': '.'},
    packages=find_packages(include=['dms_razor', 'dms_razor.*']),
    package_data={'dms_razor': ['py.typed']},
    entry_points={'console_scripts': ['dms-razor=dms_razor.command:main']},
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={
        **EXTRAS, 'all': sum(EXTRAS.values(), []),
        'coverage': COVERAGE,
        'llm': LLM
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False)
