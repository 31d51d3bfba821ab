# SPDX-License-Identifier: Apache-2.0
"""What all commands share: the global options, the store, output as text or JSON, errors and exit codes.

A command is a function decorated with :func:`command`; it takes the :class:`App` first. It prints what it did after
its store was closed, so that what the user reads is durable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import click

import pycow
from pycow.cli._format import printable, table

__all__ = [
    "App",
    "Command",
    "Exit",
    "Failures",
    "Group",
    "command",
    "exit_code",
    "message_of",
    "run_command",
    "usage_error",
]

_PATH = click.Path(path_type=Path, file_okay=False)


class Exit(enum.IntEnum):
    """Exit codes, documented in docs/CLI.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    LOCKED = 5
    DAMAGED = 6
    NO_SPACE = 7
    INTERRUPTED = 130  # as a shell reports SIGINT
    OUTPUT_CLOSED = 141  # as a shell reports SIGPIPE


# The first that fits counts.
_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (pycow.CorruptError, Exit.DAMAGED),
    (pycow.LockedError, Exit.LOCKED),
    (pycow.NoSpaceError, Exit.NO_SPACE),
    (pycow.QuotaError, Exit.NO_SPACE),
    (pycow.BusyError, Exit.CONFLICT),
    (pycow.NotEmptyError, Exit.CONFLICT),
    (pycow.AmbiguousError, Exit.CONFLICT),
    (pycow.BadReferenceError, Exit.USAGE),
    (FileExistsError, Exit.CONFLICT),
    (FileNotFoundError, Exit.NOT_FOUND),
)


def exit_code(error: BaseException) -> Exit:
    """The exit code that stands for an error."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exit.NO_SPACE
    return Exit.FAILED


def message_of(error: BaseException) -> str:
    """One line about an error."""
    if isinstance(error, OSError) and not isinstance(error, pycow.Error) and error.strerror:
        where = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
        text = error.strerror[0].lower() + error.strerror[1:] + where
    else:
        text = str(error) or type(error).__name__
    return printable(" ".join(text.splitlines()))


def _say_error(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        click.echo(f"pycow: {text}", err=True)


def default_store() -> Path:
    """Where the store is when nobody says: in the user's data directory."""
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return base / "pycow" / "store"


@dataclasses.dataclass
class App:
    """State of one run."""

    store: Path | None = None
    json: bool = False

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self.store if self.store is not None else default_store()

    @contextlib.contextmanager
    def open(self, *, write: bool = False, create: bool = False) -> Iterator[pycow.Store]:
        """Opens the store and closes (commits) it again.

        Reading commands see the last commit and work beside a process that writes. create makes a store that is
        missing, with its parent directories. Raises NotFoundError, LockedError, and what opening raises.
        """
        path = self.path
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise pycow.NotFoundError(f"no store at {path} (`pycow load` makes one)")
        with pycow.open(path, mode="rw" if write or create else "r", create=create) as store:
            yield store

    def print(self, text: str = "") -> None:
        """One line of output."""
        click.echo(text)

    def print_json(self, value: Any) -> None:
        click.echo(json.dumps(value, indent=2))

    def result(self, value: Any, *lines: str) -> None:
        """The value with --json, the lines otherwise."""
        if self.json:
            self.print_json(value)
            return
        for line in lines:
            self.print(line)

    def rows(self, headers: Sequence[str], rows: Iterable[Sequence[str]], values: Iterable[Any]) -> None:
        """An array of the values with --json, a table otherwise."""
        if self.json:
            self.print_json(list(values))
            return
        self.print(table(headers, rows))


class Failures:
    """For commands that take several names: goes on after an error, reports each, and keeps the first's exit code."""

    def __init__(self) -> None:
        self.code = Exit.OK

    @contextlib.contextmanager
    def caught(self, *ignored: type[BaseException]) -> Iterator[None]:
        """Reports an error of the block; errors that are ignored pass in silence. Damage and a full disk go on up."""
        try:
            yield
        except ignored:
            return
        except (pycow.Error, LookupError) as error:
            code = exit_code(error)
            if code in (Exit.DAMAGED, Exit.NO_SPACE):
                raise
            _say_error(message_of(error))
            self.code = self.code or code


def _set_store(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(App).store = value


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(App).json = True


def _global_options(*, environment: bool) -> list[click.Parameter]:
    """--store and --json; they stand before or after the command's name."""
    return [
        click.Option(
            ["--store"],
            type=_PATH,
            envvar="PYCOW_STORE" if environment else None,
            expose_value=False,
            callback=_set_store,
            metavar="PATH",
            help="The store's directory (PYCOW_STORE; default ~/.local/share/pycow/store).",
        ),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Print JSON."),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options(environment=False)


class Group(click.Group):
    """The program, or a command that has commands of its own; commands are listed in the order they were added.

    environment says that PYCOW_STORE counts: for the outermost group only, so that it never beats an option.
    """

    def __init__(self, *args: Any, environment: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options(environment=environment)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command of a function whose first parameter is the App."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        return click.command(name, cls=Command, **attributes)(click.make_pass_decorator(App, ensure=True)(function))

    return decorate


def run_command(group: click.Group, arguments: Sequence[str]) -> int:
    """Runs a command line; errors become one line on stderr and an exit code (PYCOW_DEBUG=1: they are raised)."""
    _tolerate_any_name(sys.stdout)
    _tolerate_any_name(sys.stderr)
    if "_PYCOW_COMPLETE" in os.environ:  # the shell asks for completions
        group.main(list(arguments), prog_name="pycow")
    try:
        code = _invoke(group, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return Exit.OUTPUT_CLOSED
    except (KeyboardInterrupt, click.Abort):
        _say_error("interrupted")
        return Exit.INTERRUPTED
    except click.UsageError as error:
        help_of = error.ctx.command_path if error.ctx else "pycow"
        _say_error(f"{printable(error.format_message())} (see `{help_of} --help`)")
        return Exit.USAGE
    except click.ClickException as error:
        _say_error(printable(error.format_message()))
        return error.exit_code
    except (pycow.Error, OSError) as error:
        _debug(error)
        _say_error(message_of(error))
        return exit_code(error)
    except Exception as error:
        _debug(error)
        _say_error(f"internal error: {type(error).__name__}: {message_of(error)} (PYCOW_DEBUG=1 shows where)")
        return Exit.FAILED
    return code


def _invoke(group: click.Group, arguments: Sequence[str]) -> int:
    # Not group.main(): that one ends the process on a closed pipe with a code of its own.
    try:
        with group.make_context("pycow", list(arguments)) as ctx:
            value = group.invoke(ctx)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return Exit.USAGE
    except click.exceptions.Exit as stop:
        return stop.exit_code
    return int(value) if isinstance(value, int) else Exit.OK


def _debug(error: BaseException) -> None:
    if os.environ.get("PYCOW_DEBUG", "") not in ("", "0"):
        raise error


def _tolerate_any_name(stream: IO[str]) -> None:
    """File names are bytes: ones that are no text must not stop the output."""
    if isinstance(stream, io.TextIOWrapper):
        utf8 = stream.encoding.lower().replace("-", "") == "utf8"
        stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _drop_output() -> None:
    """The reader went away: what is still buffered goes nowhere, and the interpreter's last flush succeeds."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def usage_error(text: str) -> NoReturn:
    """A wrong command line, found by the command itself."""
    raise click.UsageError(text, ctx=click.get_current_context(silent=True))
