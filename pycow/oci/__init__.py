# SPDX-License-Identifier: Apache-2.0
"""Image formats: docker-archive, OCI layout, configs, references, layers. Only load.py knows of the store."""
