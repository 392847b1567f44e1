"""The command line: arguments in, one library call, report out, exit code as diff(1) has it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from normswap.cli.convert import convert
from normswap.cli.crash_guard import exit_guarded
from normswap.cli.diagnose import diagnose
from normswap.cli.inspect import inspect
from normswap.cli.output import trouble
from normswap.cli.recalibrate import recalibrate
from normswap.cli.verify import verify
from normswap.errors import sentence_of
from normswap.norms import NORMS
from normswap.reports.outcome import INTERRUPTED, TROUBLE
from normswap.version import __version__

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments without the program's name; those of the process if None.

    Returns:
        0 equal, 1 different, 2 trouble, 130 interrupted.
    """
    try:
        _show_any_name()
        # Given even where they are the process's, since click would expand globs and ~ in those on Windows.
        arguments = list(sys.argv[1:] if argv is None else argv)
        return int(command.main(arguments, "normswap", standalone_mode=False) or 0)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "normswap"
        return trouble(f"{error.format_message().rstrip('.')}; {where} --help says more")
    except click.ClickException as error:
        return trouble(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        trouble("interrupted; no file was left half-written")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the reader of our output went away; click and rich exit at that
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE
    except Exception as error:
        return trouble(sentence_of(error))


def _show_any_name() -> None:
    """Let names that standard output cannot encode be shown escaped instead of ending the run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


_HELP = """Convert the BatchNorm layers of a model, and prove that the result computes what was meant.

\b
Targets and what each equals:
{targets}

Exit codes: 0 equal, 1 different, 2 trouble (usage, unreadable, refused, does not run).
"""  # the backspace is click's mark for lines that it is not to wrap


@click.group(
    "normswap",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=_HELP.format(targets="\n".join(f"  {norm.name:<11} {norm.meaning}" for norm in NORMS.values())),
)
@click.version_option(__version__, prog_name="normswap")
def command() -> None:
    """Collect the commands."""


for _command in (inspect, convert, verify, diagnose, recalibrate):
    command.add_command(_command)


def run() -> None:
    """Entry point of the console script."""
    exit_guarded(main)
