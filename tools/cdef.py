# SPDX-License-Identifier: Apache-2.0
"""Builds the extension's C source from the fenced part of csrc/cow.h: ``cffi-gen-src exec-python tools/cdef.py OUT``.

The header is the one place where the C API is declared; this script only cuts it out.
"""

import pathlib

import cffi

BEGIN, END = "/* cdef: begin */", "/* cdef: end */"
CALLBACKS = 'extern "Python" void pycow_found(void *context, const cow_finding *finding);\n'


def fenced(header: str) -> str:
    """The declarations between the fences; exactly one pair must be there."""
    if header.count(BEGIN) != 1 or header.count(END) != 1:
        raise ValueError("cow.h must have one pair of cdef fences")
    return header.split(BEGIN)[1].split(END)[0]


def ffibuilder() -> cffi.FFI:
    header = pathlib.Path(__file__).resolve().parent.parent / "csrc" / "cow.h"
    ffi = cffi.FFI()
    ffi.cdef(fenced(header.read_text(encoding="utf-8")) + CALLBACKS)
    ffi.set_source("pycow._cow", '#include "cow.h"\n')
    return ffi
