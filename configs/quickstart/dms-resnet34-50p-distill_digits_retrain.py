# Copyright (c) dms_razor contributors. All rights reserved.
# Trains the searched network from scratch, with the trained supernet as its
# teacher.
_base_ = './dms-resnet34-50p_digits_retrain.py'

model = dict(
    _delete_=True,
    type='DMSDistill',
    architecture=_base_.model,
    teacher_ckpt='work_dirs/resnet34_digits/epoch_15.pth')
