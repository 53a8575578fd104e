# Copyright (c) dms_razor contributors. All rights reserved.
"""What the OpenMMLab half cannot do without, asked for before it is imported.

Else the first import that fails, often deep in a package that a user has never
heard of, is all that is said.
"""
import importlib.util
from typing import Dict

from ..errors import MissingPackageError

#: What is imported -> what to install. mmpretrain imports torchvision, and
#: mmengine pkg_resources of setuptools; neither package says so itself.
NEEDED: Dict[str, str] = {
    'torchvision': 'torchvision',
    'mmengine': 'mmengine',
    'mmcv': "'mmcv-lite<2.1'",
    'mmpretrain': 'mmpretrain',
    'mmrazor': 'mmrazor',
    'joblib': 'joblib',
    'pkg_resources': "'setuptools<82'",
}


def refuse_missing() -> None:
    """Name everything that lacks, at once.

    Raises:
        MissingPackageError: Something does, with the line that installs it.
    """
    missing = [
        name for name in NEEDED if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingPackageError(
            f'dms_razor.openmmlab needs {", ".join(missing)}, which this '
            'environment lacks: pip install '
            f'{" ".join(NEEDED[name] for name in missing)} (torchvision in '
            'the build of your torch). Without OpenMMLab, search in plain '
            'Python: from dms_razor import Search')
