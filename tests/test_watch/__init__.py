# Copyright (c) dms_razor contributors. All rights reserved.
