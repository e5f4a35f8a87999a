"""Declare the optional part in C. Everything else is in pyproject.toml.

`CHALK_ONLINE_STORE_PURE=1` leaves it out, for the pure-Python wheel.
"""

import os

from setuptools import Extension, setup

DECODER = Extension(
    "chalk_online_store.codec._decoder",
    ["src/chalk_online_store/codec/_decoder.c"],
    optional=True,  # Without a C compiler, the decoder in Python does the same.
)

setup(ext_modules=[] if os.environ.get("CHALK_ONLINE_STORE_PURE") else [DECODER])
