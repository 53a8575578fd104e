# Copyright (c) dms_razor contributors. All rights reserved.
from setuptools import find_packages, setup

version = {}
with open('dms_razor/version.py') as f:
    exec(f.read(), version)
setup(
    name='dms_razor',
    version=version['__version__'],
    packages=find_packages(include=['dms_razor', 'dms_razor.*']))
