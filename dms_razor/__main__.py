# Copyright (c) dms_razor contributors. All rights reserved.
"""``python -m dms_razor`` is ``dms-razor``."""
from .command import main

if __name__ == '__main__':
    main()
