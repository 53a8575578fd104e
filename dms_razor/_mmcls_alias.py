# Copyright (c) dms_razor contributors. All rights reserved.
"""Let ``import mmcls.…`` find MMPretrain, its successor.

An entry in ``sys.modules`` alone would not do: ``import mmcls.models`` would
then run the files of ``mmpretrain.models`` a second time under the other
name and register every model twice.
"""
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Optional

OLD, NEW = 'mmcls', 'mmpretrain'


class AliasFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import ``mmcls`` and ``mmcls.x`` as MMPretrain's very modules."""

    def find_spec(self, fullname: str, path=None, target=None):
        """The spec of a module of MMCls, if MMPretrain has it too."""
        real = self._real(fullname)
        if real is None or importlib.util.find_spec(real) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec) -> Optional[types.ModuleType]:
        """An empty module; :meth:`exec_module` puts the real one there."""
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Make the real module what ``sys.modules`` has for this name."""
        name = module.__name__
        sys.modules[name] = importlib.import_module(str(self._real(name)))

    @staticmethod
    def _real(name: str) -> Optional[str]:
        head, _, tail = name.partition('.')
        if head != OLD:
            return None
        return f'{NEW}.{tail}' if tail else NEW
