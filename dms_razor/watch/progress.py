# Copyright (c) dms_razor contributors. All rights reserved.
"""A progress bar of a search, or a line now and then.

The bar is tqdm's, where tqdm is installed and a terminal looks at it;
elsewhere a plain line is printed every few seconds, so that a log stays short.
"""
import sys
import time
from typing import Any, Optional, TextIO

from ..errors import check_number
from .status import status_of


def make_bar(total: int, out: TextIO) -> Optional[Any]:
    """A bar of tqdm's; None without tqdm or a terminal.

    Args:
        total (int): Steps.
        out (TextIO): Where it is drawn.
    """
    if not getattr(out, 'isatty', lambda: False)():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, file=out, desc='search', dynamic_ncols=True)


class Progress:
    """Shows a search while it goes on; called with it after each step.

    What is shown costs one evaluation of the cost, so it is worked out when
    it is shown and not in every step.

    Args:
        out (TextIO, optional): Where to, by default standard error.
        seconds (float): Between two lines, or between two looks at the cost.
            The first and the last step are shown in any case.

    Raises:
        ValueError: The seconds are no positive number.
    """

    def __init__(self,
                 out: Optional[TextIO] = None,
                 seconds: float = 5.) -> None:
        check_number('seconds between two lines of progress', seconds)
        self.out, self.seconds = out or sys.stderr, seconds
        self._bar: Optional[Any] = None
        self._begun = self._shown = -1.

    def __call__(self, search: Any) -> None:
        """A step is done."""
        now = time.monotonic()
        steps = search.total_steps + search.width_only_steps
        if self._begun < 0:
            self._begun = now
            self._bar = make_bar(steps or None, self.out)
        last = search.step_count == steps
        pause = min(self.seconds, .5) if self._bar else self.seconds
        if self._bar is not None:
            self._bar.update(search.step_count - self._bar.n)
        if self._shown < 0 or last or now - self._shown >= pause:
            self._shown = now
            self._show(search, now - self._begun, last)

    def _show(self, search: Any, seconds: float, last: bool) -> None:
        status = status_of(search, decision=last)
        text = status.line()
        if last:
            text += f'  decides: {status.decides}'
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            of = f'/{status.steps}' if status.steps else ''
            print(
                f'search {status.step}{of}  {text}  {seconds:.0f} s',
                file=self.out,
                flush=True)
        if last:
            self.close()

    def close(self) -> None:
        """The bar is left as it is, and lines may follow it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
