"""The command line: arguments in, one library call, report out, exit code as diff(1) has it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.core import ParameterSource

import normswap
from normswap.backends import OWN
from normswap.backends.files import as_write_error, check_writable, folder_beside
from normswap.data import SCALES, parse_size
from normswap.errors import NormswapError, SelectionError, sentence_of
from normswap.formats import FORMATS, check_reports, render, time_stamp, write_reports
from normswap.guard import exit_guarded
from normswap.listing import inspection, listing
from normswap.norms import NORMS
from normswap.norms.blend import OVER, Over
from normswap.outcome import DIFFERENT, EQUAL, TROUBLE, Outcome, worst
from normswap.pairs import (
    Pair,
    is_checkpoint,
    outcome_of,
    raise_for_idle,
    raise_for_idle_with_checkpoints,
    source_of,
)
from normswap.report import Progress, counted
from normswap.runtimes import RUNTIMES
from normswap.settings import Settings, find_settings, outcomes_of, read_settings
from normswap.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main", "run"]

INTERRUPTED = 130
_TARGETS = "|".join(NORMS)
_REPORTS = ("format", "as json", "report")
_STYLES: dict[str, dict[str, Any]] = {
    "PASS": {"fg": "green", "bold": True},
    "FAIL": {"fg": "red", "bold": True},
    "TROUBLE": {"fg": "red", "bold": True},
}


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
        return _trouble(f"{error.format_message().rstrip('.')}; {where} --help says more")
    except click.ClickException as error:
        return _trouble(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        _trouble("interrupted; no file was left half-written")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the reader of our output went away; click and rich exit at that
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE
    except Exception as error:
        return _trouble(sentence_of(error))


def _trouble(sentence: str) -> int:
    lines = [line.strip() for line in sentence.splitlines()]
    click.echo(f"normswap: {visible(' '.join(filter(None, lines)))}", err=True)
    return TROUBLE


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None where the process was started without one


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
@click.version_option(normswap.__version__, prog_name="normswap")
def command() -> None:
    """Gather the commands."""


def _prints_aside() -> contextlib.redirect_stdout[TextIO]:
    """Keep what a user's code prints out of reports, which machines read."""
    return contextlib.redirect_stdout(sys.stderr)


def _shape(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in values:
        name, _sign, dims = value.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split("x")) if dims else ()
        except ValueError:
            shape = (-1,)
        if not name or any(dim < 1 for dim in shape):
            raise click.BadParameter(f"expected NAME=1x3x256x256, found {value!r}")
        shapes[name] = shape
    return shapes


def _options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with shared options, in this order."""
    known = {
        "to": click.option("--to", required=True, metavar=f"[{_TARGETS}]", help="The target."),
        "prior": click.option(
            "--prior", type=float, metavar="N0",
            help="Of blend: as how many samples the stored statistics count beside those of the input, 16 say.",
        ),
        "over": click.option(
            "--over", metavar=f"[{'|'.join(OVER)}]",
            help="Of blend: whether these are of each sample (default) or of the batch.",
        ),
        "only": click.option("--only", multiple=True, metavar="GLOB", help="Layers to convert; repeatable."),
        "skip": click.option("--skip", multiple=True, metavar="GLOB", help="Layers to leave; repeatable."),
        "may_differ": click.option(
            "--may-differ", multiple=True, metavar="GLOB", help="Converted layers that may differ; repeatable."
        ),
        "allow_refusals": click.option(
            "--allow-refusals", is_flag=True, help="Leave layers that the target cannot take as they are."
        ),
        "drop_statistics": click.option(
            "--drop-statistics", is_flag=True, help="Drop outputs that carry nothing but running statistics."
        ),
        "inputs": click.option(
            "--inputs", type=click.Path(), metavar="FILE.npz", help="End-to-end inputs, arrays by input name."
        ),
        "shape": click.option(
            "--shape", "shapes", multiple=True, callback=_shape, metavar="NAME=1x3x256x256",
            help="Shape of a generated input; repeatable.",
        ),
        "seed": click.option(
            "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of generated inputs and probes."
        ),
        "end_to_end": click.option(
            "--end-to-end/--no-end-to-end", default=True, help="Also run the whole model (default), or not."
        ),
        "runtime": click.option(
            "--runtime", "runtimes", multiple=True, metavar=f"[{'|'.join((*OWN, *RUNTIMES))}]",
            help="Run the converted .onnx file there too; repeatable.",
        ),
        "for": click.option(
            "--for", "for_runtime", metavar="RUNTIME",
            help="Write each layer in the form that this runtime computes rightly and fastest, and run it there.",
        ),
        "weights": click.option(
            "--weights", type=click.Path(), metavar="FILE", help="State dict for a factory: .pth or .safetensors."
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Print it as JSON."),
        "format": click.option(
            "--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True,
            help="How the report is printed.",
        ),
        "as json": click.option("--json", "form", flag_value="json", help="Short for --format json."),
        "report": click.option(
            "--report", "reports", type=click.Path(), multiple=True, metavar="FILE",
            help=f"Write the report too: {', '.join(filter(None, FORMATS.values()))}; repeatable.",
        ),
    }  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


@command.command()
@click.argument("model", type=click.Path())
@click.option("--to", metavar=f"[{_TARGETS}]", help="Show what converting to this target would change.")
@_options("prior", "over", "weights", "for", "only", "skip", "drop_statistics", "inputs", "shape", "json")
def inspect(
    model: str,
    weights: str | None,
    to: str | None,
    prior: float | None,
    over: Over | None,
    for_runtime: str | None,
    as_json: bool,
    drop_statistics: bool,
    inputs: str | None,
    shapes: dict[str, tuple[int, ...]],
    **choice: Any,
) -> int:
    """List the BatchNorm layers of MODEL, and what a conversion would do (a dry run).

    MODEL is an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors). With --inputs or
    --shape a factory's model is run once, so that the shapes of its layers are known.
    """
    from normswap.backends import backend_for
    from normswap.plan import make_plan, target_named
    from normswap.runtimes.choice import choose_for

    if to is None and (any(choice.values()) or for_runtime or prior is not None or over):
        raise click.UsageError(
            "--only, --skip, --for, --prior and --over choose what is converted and how; give --to as well"
        )
    norm = None if to is None else target_named(to, prior=prior, over=over)
    choose = None
    with _prints_aside():
        source = source_of(model, weights)
        if is_checkpoint(source):
            from normswap.checkpoint import layers_in, read_checkpoint

            given = {"inputs": inputs, "shapes": shapes, "drop_statistics": drop_statistics}
            raise_for_idle_with_checkpoints(given | {"for_runtime": for_runtime})
            layers = layers_in(read_checkpoint(source))
            remarks = ["a checkpoint does not say what its layers compute, nor their eps and shapes"]
        else:
            backend = backend_for(source)
            loaded = backend.load(source)
            if drop_statistics:
                loaded = backend.without_statistics(loaded)
            if inputs or shapes:
                loaded = backend.observe(
                    loaded, lambda model: backend.feeds(model, inputs, shapes, 0), given=inputs is not None
                )
            layers = backend.find(loaded)
            remarks = backend.remarks(loaded, layers)
            choose = None if norm is None else choose_for(backend, loaded, norm, for_runtime)
    planned = None if norm is None else make_plan(norm, layers, choose=choose, **choice)
    if as_json:
        click.echo(json.dumps(inspection(model, layers, planned, remarks), indent=2))
    else:
        console = _console()
        for line in listing(layers, planned, remarks):
            console.print(line)
    return EQUAL


@command.command()
@click.argument("model", type=click.Path())
@_options("to", "prior", "over", "weights")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@_options(
    "only",
    "skip",
    "allow_refusals",
    "drop_statistics",
    "inputs",
    "shape",
    "seed",
    "end_to_end",
    "for",
    "runtime",
    *_REPORTS,
)
def convert(
    model: str,
    to: str,
    weights: str | None,
    output: str,
    force: bool,
    form: str,
    reports: tuple[str, ...],
    **options: Any,
) -> int:
    """Convert the BatchNorm layers of MODEL, verify the result, and write it if it holds.

    MODEL is an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors) by itself. The suffix
    of OUT says what is written of a factory's model: weights (.pth, .safetensors) or an export (.onnx, .pt2).
    """
    check_reports(reports, [model])
    report, written, trouble = None, None, ""
    try:
        with _prints_aside(), _Progress() as progress:
            report, written = _converted(model, to, weights, output, force, options, progress)
    except NormswapError as error:
        trouble = str(error)
    outcome = Outcome(output, model, output, to, report, trouble, None if written is None else str(written))
    if report is not None and form == "text":
        click.echo(f"{counted(len(report.planned), 'BatchNorm layer')} -> {to}: {report.meaning}")
    _show([outcome], form, reports)
    if written and form == "text":
        click.echo(f"wrote {written}")
    if report is not None and not report.ok:
        click.echo("normswap: nothing was written, because the conversion did not verify", err=True)
    return outcome.exit_code


def _converted(
    model: str, to: str, weights: str | None, output: str, force: bool, options: dict[str, Any], progress: Progress
) -> tuple[normswap.Report, Path | None]:
    raise_for_idle(options)
    source = source_of(model, weights)
    if is_checkpoint(source):
        return _convert_checkpoint(source, to, output, force, options)
    if weights is not None:
        check_writable(output, [Path(weights)], force=force)
    conversion = normswap.convert(source, to, output=output, force=force, progress=progress, **options)
    return conversion.report, conversion.written


def _convert_checkpoint(
    path: str, to: str, output: str, force: bool, options: dict[str, Any]
) -> tuple[normswap.Report, Path | None]:
    """Convert a state dict without its model; what was written is read back and compared."""
    from normswap.checkpoint import (
        compare_checkpoints,
        plan_of,
        read_checkpoint,
        without_statistics,
        write_checkpoint,
    )

    raise_for_idle_with_checkpoints(options)
    if not is_checkpoint(output):
        raise SelectionError(
            f"{output}: a checkpoint becomes a checkpoint (.pth, .safetensors); an export takes the model's code: "
            "package.module:factory --weights"
        )
    before = read_checkpoint(path)
    planned = plan_of(before, to, **{name: options[name] for name in ("prior", "over", "only", "skip")})
    target = Path(output)
    check_writable(target, [Path(path)], force=force)
    with as_write_error(target), folder_beside(target) as folder:
        aside = Path(folder) / target.name
        write_checkpoint(without_statistics(before, planned), aside)
        report = compare_checkpoints(before, read_checkpoint(aside), planned)
        if report.ok:
            os.replace(aside, target)
    return report, target if report.ok else None


@command.command()
@click.argument("before", type=click.Path(), required=False)
@click.argument("after", type=click.Path(), required=False)
@click.option("--settings", type=click.Path(), metavar="FILE", help="The settings file, instead of the nearest one.")
@click.option("--pair", "chosen", multiple=True, metavar="GLOB", help="Pairs of the settings to verify; repeatable.")
@click.option("--to", metavar=f"[{_TARGETS}]", help="The target, of BEFORE and AFTER.")
@_options("prior", "over", "weights")
@click.option("--after-weights", type=click.Path(), metavar="FILE", help="State dict for a factory given as AFTER.")
@_options(
    "only",
    "skip",
    "may_differ",
    "allow_refusals",
    "drop_statistics",
    "inputs",
    "shape",
    "seed",
    "end_to_end",
    "runtime",
    *_REPORTS,
)
@click.pass_context
def verify(
    context: click.Context,
    /,
    settings: str | None,
    chosen: tuple[str, ...],
    form: str,
    reports: tuple[str, ...],
    **pair: Any,
) -> int:
    """Hold the converted model AFTER to the original BEFORE under the target's stated meaning.

    Each is an .onnx or .pt2 file, or package.module:factory. AFTER may also be the weights (.pth, .safetensors) that
    a factory's model was converted to. Models of two frameworks are compared end to end alone.

    Without BEFORE and AFTER, the pairs of the settings file are verified: normswap.toml, or [tool.normswap] of
    pyproject.toml, in this folder or the nearest one above it. The exit code is that of the worst.
    """
    check_reports(reports)
    listed = None if _names_one_pair(context) else _listed(settings, chosen)
    pairs = [Pair(**pair)] if listed is None else listed.pairs
    check_reports(reports, [model for one in pairs for model in (one.before, one.after)])
    with _prints_aside(), _Progress() as progress:
        outcomes = [outcome_of(Pair(**pair), progress)] if listed is None else outcomes_of(listed, progress)
    _show(outcomes, form, reports)
    return worst(outcomes)


@command.command()
@click.argument("model", type=click.Path())
@click.argument("shards", type=click.Path(), nargs=-1, metavar="[SHARD.npz]...")
@click.option("--inputs", type=click.Path(), metavar="DATA", help="What the statistics are gathered from: .npz, .npy.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@_options("weights")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in each batch, as in training.")
@click.option("--momentum", type=float, help="Share of the new statistics; without it they replace the old.")
@click.option("--sequential", is_flag=True, help="Layer by layer, as in eval mode: one pass for each layer.")
@click.option("--only", multiple=True, metavar="GLOB", help="Layers to recalibrate; repeatable.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Layers to leave; repeatable.")
@click.option("--shard", metavar="I/N", help="Take every N-th batch, and write moments (.npz) that --merge takes.")
@click.option("--merge", is_flag=True, help="Finish with the moments of all shards, given after MODEL.")
@_options("json")
def recalibrate(
    model: str,
    shards: tuple[str, ...],
    inputs: str | None,
    output: str,
    force: bool,
    weights: str | None,
    as_json: bool,
    shard: str | None,
    merge: bool,
    **options: Any,
) -> int:
    """Give the BatchNorm layers of MODEL new running statistics, those of DATA, and change nothing else.

    MODEL is an .onnx file or package.module:factory, of which the weights are written (.pth, .safetensors). Under
    torchrun each process takes its share of the batches; with --shard, runs that know nothing of each other do.
    """
    from normswap import recalibration_runs as runs
    from normswap.processes import process_group, rank_and_size

    asked = runs.Asked(model, output, weights, inputs, shards=shards, shard=shard, merge=merge, force=force, **options)
    with process_group():
        first = rank_and_size()[0] == 0
        with _prints_aside(), _Progress() as progress:
            done = runs.carried_out(asked, progress if first else None)
        if not first:
            return EQUAL if done.ok else DIFFERENT
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=2))
    else:
        for line in done.to_text().splitlines():
            style = next((style for word, style in _STYLES.items() if line.startswith(word)), None)
            click.secho(line, **style) if style and _is_terminal(sys.stdout) else click.echo(line)
        if done.written:
            click.echo(f"wrote {done.written}")
    return EQUAL if done.ok else DIFFERENT


@command.command()
@click.argument("model", type=click.Path())
@click.option("--inputs", required=True, type=click.Path(), metavar="DATA", help="An .npz, .npy, or a folder.")
@click.option("--targets", type=click.Path(), metavar="DATA", help="What the outputs should be.")
@_options("weights")
@click.option("--error", type=click.Choice(["l1", "psnr"]), default="l1", show_default=True, help="Of outputs.")
@click.option(
    "--batch-size", multiple=True, type=click.IntRange(min=1), help="Samples of batch statistics; repeatable."
)
@click.option("--scale", type=click.Choice(list(SCALES)), help="What black and white of images are for the model.")
@click.option("--size", metavar="WxH", help="Bring images to this size.")
@click.option("-o", "--output", type=click.Path(), metavar="REPORT.html", help="Write a page, too.")
@_options("json")
def diagnose(
    model: str,
    inputs: str,
    targets: str | None,
    weights: str | None,
    error: str,
    batch_size: tuple[int, ...],
    scale: str | None,
    size: str | None,
    output: str | None,
    as_json: bool,
) -> int:
    """Say what eval mode costs MODEL on these data, and which fix is right.

    MODEL is an .onnx file or package.module:factory. DATA is an .npz of arrays by input name, an .npy, or a folder of
    those or of PNG or JPEG images. Without --targets, train mode is taken for what is right.
    """
    from normswap.diagnosis.output import check_page, write_page

    if output is not None:
        check_page(output, [model, inputs, *filter(None, (targets, weights))])
    with _prints_aside(), _Progress() as progress:
        found = normswap.diagnose(
            source_of(model, weights),
            inputs,
            targets=targets,
            error=error,
            batch_size=batch_size,
            scale=SCALES[scale] if scale else None,
            size=parse_size(size) if size else None,
            progress=progress,
        )
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text())
    if output is not None:
        write_page(found, model, output)
        if not as_json:
            click.echo(f"wrote {output}")
    return EQUAL if found.complete else INTERRUPTED


def _names_one_pair(context: click.Context) -> bool:
    """Whether a command names two models, and not a settings file; what goes with the other alone is refused."""
    given = {
        str(parameter.name): parameter
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    }
    of_pair = [given[field.name] for field in fields(Pair) if field.name in given]
    if "before" not in given:
        if of_pair:
            raise click.UsageError(
                f"{_spelled(of_pair[0])} is for BEFORE and AFTER; without them the settings file says it of each pair"
            )
        return False
    if "after" not in given:
        raise click.UsageError("Missing argument 'AFTER'; give both models, or neither to verify those of the settings")
    if "to" not in given:
        raise click.UsageError("Missing option '--to'")
    for name in ("settings", "chosen"):
        if name in given:
            raise click.UsageError(f"{_spelled(given[name])} does nothing beside BEFORE and AFTER; leave it out")
    return True


def _spelled(parameter: click.Parameter) -> str:
    return "/".join((*parameter.opts, *parameter.secondary_opts))


def _listed(path: str | None, chosen: Sequence[str]) -> Settings:
    found = read_settings(find_settings() if path is None else path)
    listed = found.only(chosen)
    of = f"{len(listed.pairs)} of " if len(listed.pairs) < len(found.pairs) else ""
    click.echo(f"normswap: {of}{counted(len(found.pairs), 'pair')} in {found.path}", err=True)
    return listed


def _show(outcomes: Sequence[Outcome], form: str, reports: Sequence[str]) -> None:
    """Print the outcomes, write the reports that were asked for, and name trouble where trouble is looked for."""
    created = time_stamp()
    if form != "text":
        click.echo(render(form, outcomes, created), nl=False)
    elif len(outcomes) > 1 or outcomes[0].report is not None:
        for line in render(form, outcomes, created).splitlines():
            style = next((style for word, style in _STYLES.items() if line.startswith(word)), None)
            click.secho(line, **style) if style and _is_terminal(sys.stdout) else click.echo(line)
    for outcome in outcomes:
        if outcome.trouble:
            _trouble(f"{outcome.name}: {outcome.trouble}" if len(outcomes) > 1 else outcome.trouble)
    write_reports(reports, outcomes, created)


def _console() -> Console:
    from rich.console import Console

    # Into a file or a pipe, wide enough that names and reasons are not broken.
    return Console(width=None if _is_terminal(sys.stdout) else 200, highlight=False, emoji=False, markup=False)


class _Progress:
    """Show a bar on a terminal once the work has taken a second."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        return self._show

    def _show(self, stage: str, done: int, total: int) -> None:
        if not _is_terminal(sys.stderr) or time.monotonic() - self._start < 1:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(stage, total=total or None)
        self._bar.update(self._task, description=stage, completed=done, total=total or None)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def run() -> None:
    """Entry point of the console script."""
    exit_guarded(main)
