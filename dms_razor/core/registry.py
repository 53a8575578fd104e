# Copyright (c) dms_razor contributors. All rights reserved.
"""Names of things that can be added from outside the package.

Importances, selectors, resource metrics and rules of operations are each one
:class:`Registry`; docs/en/extend.md adds one of each kind.
"""
from typing import Any, Callable, Dict

from ..errors import nearest


class Registry(Dict[str, Any]):
    """What is known of one kind, by name.

    Args:
        kind (str): What the entries are, for messages, e.g. 'importance'.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, *names: str) -> Callable:
        """Decorator: enter an object under one or more names.

        Raises:
            ValueError: A name is taken by another object.
        """

        def enter(entry: Any) -> Any:
            for name in names:
                if self.get(name, entry) is not entry:
                    raise ValueError(f'the {self.kind} "{name}" is registered '
                                     'already, choose another name')
                self[name] = entry
            return entry

        return enter

    def find(self, name: str) -> Any:
        """The entry of this name.

        Raises:
            ValueError: There is none; the known names are listed.
        """
        if name in self:
            return self[name]
        raise ValueError(f'{self.kind} "{name}" is not known, use one of '
                         f'{", ".join(self)}{nearest(name, self)}')
