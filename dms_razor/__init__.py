# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling (DMS) for plain PyTorch and for MMRazor.

Importing this package is light: it imports neither torch nor OpenMMLab.

- ``dms_razor.Search`` is the plain-Python way in; it needs torch alone.
- ``import dms_razor.openmmlab`` makes OpenMMLab work on current torch (see
  :mod:`dms_razor.compat.shims`) and registers everything that configs name.
"""
from typing import TYPE_CHECKING, Any

from . import moved
from .version import __version__

if TYPE_CHECKING:  # a checker does not run what is below
    from .search import Search

__all__ = ['Search', '__version__']
moved.install()


def __getattr__(name: str) -> Any:
    """Import :class:`dms_razor.search.Search` when it is first asked for."""
    if name == 'Search':
        from .search import Search
        return Search
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list:
    return sorted(set(globals()) | set(__all__))
