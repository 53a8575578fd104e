# Copyright (c) dms_razor contributors. All rights reserved.
"""Words of the coverage tables, each reason once for all blocks."""
import re

KINDS = ('width', 'heads', 'qk', 'v', 'experts', 'depth')
#: What differs from block to block -> what stands there instead.
GENERAL = (
    (r"shape '\[.*?\]' is invalid for input of size \d+",
     'it reshapes to numbers of its own'),
    (r'normalized_shape=.*', 'it normalises other sizes)'),
    (r'RuntimeError: (Given )?', ''),
    (r'outputs differ by [\d.e+-]*\d', 'outputs differ'),
    (r'(?<=\.)\d+(?=[."\s]|$)', '*'),
)


def general(text: str) -> str:
    """``text`` without what differs from block to block."""
    for pattern, instead in GENERAL:
        text = re.sub(pattern, instead, text)
    return text


def plain(text: str) -> str:
    """``text`` on one line that breaks no table."""
    return ' '.join(text.replace('|', '/').split())[:300]
