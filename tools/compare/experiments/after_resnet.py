# Copyright (c) dms_razor contributors. All rights reserved.
"""What to do with a found ResNet: keep its weights, or train new ones."""
from tools.compare.experiments._afterwards import after
from tools.compare.experiments.pretrained import experiment as base

experiment = after(base, 'After the search: a pretrained ResNet')
