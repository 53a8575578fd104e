# Copyright (c) dms_razor contributors. All rights reserved.
"""What to do with a found MobileNetV2: keep its weights, or train new ones."""
from tools.compare.experiments._afterwards import after
from tools.compare.experiments.mobilenet import experiment as base

experiment = after(base, 'After the search: a pretrained MobileNetV2')
