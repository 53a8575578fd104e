# Copyright (c) dms_razor contributors. All rights reserved.
"""The error that every refusal of a subnet raises."""


class SubnetError(ValueError):
    """A subnet, manifest or checkpoint that must not be used.

    The message names the thing, the reason and the remedy. It is a
    ``ValueError``, so callers that do not know this package can catch it.
    """


def listed(names, limit: int = 5) -> str:
    """Join names for a message, at most ``limit`` of them.

    Args:
        names (Iterable[str]): What to list.
        limit (int): How many names are spelled out.

    Returns:
        str: ``'a, b, c and 12 more'``.
    """
    names = list(names)
    text = ', '.join(names[:limit])
    rest = len(names) - limit
    return f'{text} and {rest} more' if rest > 0 else text
