# SPDX-License-Identifier: Apache-2.0
"""``python -m pycow.cli``."""

from __future__ import annotations

from pycow.cli import main

main()
