# SPDX-License-Identifier: Apache-2.0
"""``pycow quota``: how much a container may hold by itself."""

from __future__ import annotations

import click

from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import usage_value
from pycow.cli._format import human_size, parsed_size

__all__ = ["command", "quota_option"]


def quota_option(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes of a SIZE on the command line, None for "none" or nothing."""
    if value is None or value == "none":
        return None
    try:
        size = parsed_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    if size == 0:
        raise click.BadParameter("a quota is above 0; none takes it away", context, parameter)
    return size


@_command("quota")
@click.argument("container")
@click.argument("size", required=False)
def command(app: App, container: str, size: str | None) -> None:
    """Show or set what CONTAINER may hold by itself: SIZE is 4096, 500MB, 2GiB or none."""
    quota = quota_option(click.get_current_context(), click.Argument(["size"]), size)
    with app.open(write=size is not None) as store:
        box = store.containers.get(container)
        if size is not None:
            box.set_quota(quota)
        usage = box.usage()
    bound = "none" if usage.quota is None else human_size(usage.quota)
    app.result({"container": box.id, **usage_value(usage)}, f"{human_size(usage.size)} of {bound}")
