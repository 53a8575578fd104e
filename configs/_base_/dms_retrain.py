# Copyright (c) dms_razor contributors. All rights reserved.
# What every training of a searched network has beside its model and recipe.
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)
