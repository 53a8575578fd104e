# Copyright (c) dms_razor contributors. All rights reserved.
"""Modules whose code computes a shape from the width of the stream.

``qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)`` and
``x.reshape(B, N, C)`` take C off the stream, and are wrong as soon as heads or
the stream are narrower. A *reshaped* module runs the code of its own class,
in which the calls of ``reshape`` and ``view`` look up the sizes that tracing
has found for them. A call is told by the method that it stands in and by its
place among such calls there, so that nothing depends on what is run before.
"""
import ast
import inspect
import sys
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType, FunctionType
from typing import Any, Dict, List, Optional, Tuple

from torch import nn

#: Manifest name of such modules.
RESHAPED = 'Reshaped'
#: Beginning of the names of the numbers of such modules.
SIZE = 'dms_size_'
CALLS = ('reshape', 'view')


@lru_cache(maxsize=None)
def _parsed(code: CodeType) -> Tuple[Optional[ast.FunctionDef], int]:
    """A method as it is written, and its indentation; None if unreadable."""
    try:
        lines, _ = inspect.getsourcelines(code)
        function = ast.parse(textwrap.dedent(''.join(lines))).body[0]
    except (OSError, SyntaxError, IndexError, TypeError):
        return None, 0
    readable = isinstance(function, ast.FunctionDef) and function.args.args \
        and not function.decorator_list and not code.co_freevars
    private = any(
        isinstance(node, ast.Attribute) and node.attr.startswith('__')
        and not node.attr.endswith('__') for node in ast.walk(function))
    indent = len(lines[0]) - len(lines[0].lstrip())
    return (function if readable and not private else None), indent


def _calls(function: ast.FunctionDef) -> List[ast.Call]:
    """Calls such as ``x.reshape(...)``, in the order in which they end."""
    found = [
        node for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and node.func.attr in CALLS and not node.keywords and not (isinstance(
            node.func.value, ast.Name) and node.func.value.id == 'torch')
    ]
    return sorted(
        found, key=lambda node: (node.end_lineno, node.end_col_offset))


@dataclass(frozen=True)
class Site:
    """A call of ``reshape`` or ``view`` in a method of a module.

    Attributes:
        module (nn.Module): The module.
        code (CodeType): Code of the method.
        place (int): Place of the call among all such calls of the method.
    """
    module: nn.Module
    code: CodeType
    place: int

    @property
    def call(self) -> Optional[str]:
        """Its name, of method and place; None if it has none."""
        method = getattr(type(self.module), self.code.co_name, None)
        own = getattr(method, '__code__', None) is self.code
        return f'{self.code.co_name}_{self.place}' if own else None


def site_of(frame: Optional[FrameType]) -> Optional[Site]:
    """Which call of a module's method a frame is at, if it is one of ours.

    Args:
        frame (FrameType, optional): What has called ``reshape`` or ``view``.
    """
    if frame is None or not frame.f_code.co_argcount:
        return None
    code = frame.f_code
    module = frame.f_locals.get(code.co_varnames[0])
    if not isinstance(module, nn.Module):
        return None
    function, indent = _parsed(code)
    if function is None:
        return None
    first, calls = code.co_firstlineno - 1, _calls(function)
    if hasattr(code, 'co_positions'):  # from Python 3.11
        place = next(islice(code.co_positions(), frame.f_lasti // 2, None))
        found = [
            number for number, call in enumerate(calls)
            if (call.end_lineno + first,
                call.end_col_offset + indent) == (place[1], place[3])
        ]
    else:
        line = frame.f_lineno - first
        found = [
            number for number, call in enumerate(calls)
            if call.lineno <= line <= call.end_lineno
        ]
    return Site(module, code, found[0]) if len(found) == 1 else None


class Reshaped:
    """Mixin in front of a module's own class."""

    def __getattr__(self, name: str) -> Any:
        # A size that is not set yet may be any.
        return sys.maxsize if name.startswith(SIZE) else super().__getattr__(
            name)

    def _dms_sizes(self, call: str, *sizes: Any) -> List[Any]:
        """The sizes that a call was given, or those that are known."""
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            sizes = sizes[0]
        return [
            self.__dict__.get(f'{SIZE}{call}_{dim}', size)
            for dim, size in enumerate(sizes)
        ]


def _rewritten(method: FunctionType) -> Optional[FunctionType]:
    """A method whose calls look up their sizes; None if it has none."""
    code = method.__code__
    function, _ = _parsed(code)
    calls = [] if function is None else _calls(function)
    if not calls:
        return None
    own = function.args.args[0].arg
    before = [call.args for call in calls]
    try:
        for place, call in enumerate(calls):
            look_up = ast.parse(
                f'{own}._dms_sizes("{code.co_name}_{place}")',
                mode='eval').body
            look_up.args += call.args
            call.args = [ast.Starred(look_up, ast.Load())]
        tree = ast.Module([function], [])
        ast.fix_missing_locations(tree)
        space: Dict[str, Any] = {}
        exec(
            compile(tree, code.co_filename, 'exec', dont_inherit=True),
            method.__globals__, space)
    finally:  # the tree is kept for others
        for call, args in zip(calls, before):
            call.args = args
    new = space[function.name]
    new.__defaults__ = method.__defaults__
    new.__kwdefaults__ = method.__kwdefaults__
    return new


def reshaped_type(kind: type) -> type:
    """The class of modules of ``kind`` whose calls look up their sizes."""
    methods: Dict[str, Any] = {}
    for parent in kind.__mro__[:kind.__mro__.index(nn.Module)]:
        for name, method in vars(parent).items():
            if isinstance(method, FunctionType):
                methods.setdefault(name, method)
    body = {name: _rewritten(method) for name, method in methods.items()}
    body = {name: new for name, new in body.items() if new is not None}
    return type(f'{RESHAPED}{kind.__name__}', (Reshaped, kind),
                dict(body, __module__=kind.__module__))
