# SPDX-License-Identifier: Apache-2.0
"""The benchmark: pycow beside what a user would pick instead, on the same work, in one run.

`pycow bench` is the short version; bench/compare/ in the source tree runs all of it. Nothing in the product knows of
this package.
"""
