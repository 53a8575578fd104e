# Copyright (c) dms_razor contributors. All rights reserved.
"""Sphinx configuration: ``sphinx-build -W -b html docs/en docs/_build``."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Compatibility must come before autodoc imports anything of OpenMMLab.
import dms_razor.openmmlab  # noqa: E402,F401
from dms_razor import __version__  # noqa: E402

project = 'dms_razor'
author = 'dms_razor contributors'
copyright = '2026, dms_razor contributors'
release = __version__

extensions = [
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'myst_parser',
]
source_suffix = {'.rst': 'restructuredtext', '.md': 'markdown'}
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'dms_razor {release}'

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3

autodoc_member_order = 'bysource'
# Triton comes with CUDA builds of PyTorch, Numba is an extra.
autodoc_mock_imports = ['numba', 'triton']
autodoc_typehints = 'none'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_google_docstring = True
napoleon_use_ivar = True
