# SPDX-License-Identifier: Apache-2.0
"""Checks that modules use only what lies below them. Prints each offence; exit code 1 when there is one."""

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# C folders from bottom to top; a file may include headers of its own folder and of those before it.
C_LAYERS = ("base", "dev", "format", "space", "btree", "tree", "fs", "check", "tar", "api")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
NOT_IN_THE_CORE = re.compile(r'^\s*#\s*include\s*[<"](Python\.h|fuse[^>"]*)[>"]', re.MULTILINE)

# Python modules of the package from bottom to top; those of one row are independent of each other, except that a
# row may import itself for type checking.
PY_LAYERS = (
    ("errors",),
    ("results",),
    ("_native",),
    ("_hostcopy", "_names", "catalog", "fs", "oci"),
    ("containers", "images", "layers", "mount", "volumes"),
    ("store",),
    ("__init__",),
    ("bench",),
    ("cli",),
)


def c_offences(core: pathlib.Path) -> list[str]:
    rank = {name: i for i, name in enumerate(C_LAYERS)}
    found = []
    for path in sorted(core.rglob("*.[ch]")):
        where = path.relative_to(core)
        if where.name == "cow.h" or where.parts[0] == "fuse":
            continue
        layer = where.parts[0] if len(where.parts) > 1 else "api"
        text = path.read_text(encoding="utf-8")
        if match := NOT_IN_THE_CORE.search(text):
            found.append(f"csrc/{where}: includes {match[1]}")
        for name in INCLUDE.findall(text):
            if name == "cow.h":
                continue  # types and constants of the public header are for everybody
            other = name.split("/")[0] if "/" in name else layer
            if other not in rank:
                found.append(f'csrc/{where}: includes "{name}", which is in no layer')
            elif rank[other] > rank[layer]:
                found.append(f'csrc/{where}: {layer} includes "{name}", which lies above it')
    return found


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that are imported when the module is (not those under TYPE_CHECKING or in functions)."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "pycow":
                names.update(f"pycow.{alias.name}" for alias in node.names)
            else:
                names.add(node.module)
    return {name for name in names if name.split(".")[0] == "pycow"}


def python_offences(package: pathlib.Path) -> list[str]:
    rank = {name: i for i, row in enumerate(PY_LAYERS) for name in row}
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        layer = where.parts[0].removesuffix(".py")
        if layer not in rank:
            found.append(f"pycow/{where}: is in no layer")
            continue
        text = path.read_text(encoding="utf-8")
        if layer != "_native" and re.search(r"^\s*(from|import) pycow\._cow", text, re.MULTILINE):
            found.append(f"pycow/{where}: imports the extension; only _native.py may")
        for name in sorted(imported(ast.parse(text))):
            parts = name.split(".")
            other = parts[1] if len(parts) > 1 else "__init__"
            if other == "_cow":
                continue
            if rank.get(other, 0 if other in rank else rank["__init__"]) > rank[layer]:
                found.append(f"pycow/{where}: {layer} imports {name}, which lies above it")
    return found


def main() -> int:
    found = c_offences(ROOT / "csrc") + python_offences(ROOT / "pycow")
    for offence in found:
        print(offence)
    print(f"layering: {len(found)} offences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
