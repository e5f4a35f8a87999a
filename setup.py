"""Declare the optional part in C. Everything else is in pyproject.toml.

`CHALK_ONLINE_STORE_PURE=1` leaves it out, for the pure-Python wheel.
"""

import os

from setuptools import Extension, setup

CODEC = "src/chalk_online_store/codec"

KERNELS = Extension(
    "chalk_online_store.codec._kernels",
    [
        f"{CODEC}/_kernels_module.c",
        f"{CODEC}/_kernels_decode.c",
        f"{CODEC}/_kernels_encode.c",
        f"{CODEC}/_kernels_frame.c",
        f"{CODEC}/_kernels_matrix.c",
        f"{CODEC}/_kernels_pack.c",
        f"{CODEC}/_kernels_request.c",
    ],
    depends=[f"{CODEC}/_kernels.h"],
    optional=True,  # Without a C compiler, the code in Python does the same.
)

setup(ext_modules=[] if os.environ.get("CHALK_ONLINE_STORE_PURE") else [KERNELS])
