# SPDX-License-Identifier: Apache-2.0
# The extension's two names. Their contents come from csrc/cow.h at build time; only _native.py uses them.
from typing import Any

ffi: Any
lib: Any
