"""The command line. Exit codes: 0 success, 1 a plan with a miss or a failure, 2 bad arguments (one line on stderr,
nothing written).

Imports of torch and of everything that stands on it happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console as say
from bench.cli import study
from bench.cli.options import Out, Work, check_writable, with_options
from bench.setup.request import Request
from shared.host import print_any_text

if TYPE_CHECKING:
    from methods.contract import Method

# Older typer takes its exceptions from click, newer typer ships them; both derive BadParameter from UsageError.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Compress a network to an energy budget with ECC, NetAdapt, AMC and controls, and compare them.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
@with_options()
def run(request: Request, work: Work) -> None:
    """Compress with each method at each budget with each seed, and write a report."""
    from bench import report
    from bench.record.store import Store
    from bench.run import runner
    from bench.setup import plan

    console = say.console()
    check_writable("--out", work.out)
    made = plan.make(request, console.print, to_train=True)
    console.print(say.first_line(made.setup))
    say.check_files(made.setup.dataset, console)
    jobs = work.processes(request.compute)
    finished = runner.run(made, Store(work.out), jobs=jobs, fresh=work.fresh, console=console)
    if finished.records:
        pages = report.render(finished.records, work.out)
        console.print(report.summary_table(finished.records), soft_wrap=True)
        for page in pages:
            console.print(f"report: {page}", soft_wrap=True)
    for job, reason in finished.open.items():
        console.print(f"{job.name} is still open: {reason}; the same command tries it again", soft_wrap=True)
    if finished.open or any(record.status == "miss" for record in finished.records):
        raise typer.Exit(1)


@app.command(name="plan")
@with_options()
def plan_(request: Request, work: Work) -> None:
    """Say what `run` with the same arguments would cost, without running it. Finished runs in --out cost nothing."""
    from bench.record.store import Store
    from bench.run import cost, runner
    from bench.run.progress import minutes
    from bench.setup import plan
    from shared.data import in_files

    console = say.console()
    made = plan.make(request, console.print)
    console.print(say.first_line(made.setup))
    records = {} if work.fresh else runner.stored_records(made, Store(work.out), console)
    jobs = [job for job in made.jobs if job not in records]
    with say.computing("timing a plan"):  # by training steps
        estimate = cost.estimate(made, jobs)
        files = in_files(request.dataset)
        remark = cost.missing_weights(made) if request.data or not files else cost.without_data(made)
    if remark is not None:
        console.print(remark, soft_wrap=True)
    for job, seconds in estimate.job_seconds.items():
        budget = "no budget" if job.budget is None else f"{job.budget.amount:.4g} {made.setup.unit}"
        console.print(f"  {job.name}: {budget}, about {minutes(seconds)}")
    console.print(estimate.describe(work.processes(request.compute)))


@app.command(name="report")
def report_(
    out: Out = Path("runs"),
    to: Annotated[Path | None, typer.Option(help="Publish into this folder, with copies of the records.")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="With --to: keep the other records of the same pages, as of other methods.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Rewrite the pages in --to from its own records.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a page in --to differs from its records.")] = False,
    form: Annotated[
        str,
        typer.Option("--format", help="markdown; csv or latex: a file per page, below --to where it is given."),
    ] = "markdown",
) -> None:
    """Regenerate reports from records."""
    from bench import report
    from bench.studies import energy_models as energy_study
    from bench.studies import eyeriss
    from bench.studies import networks as network_study
    from shared.errors import BadInput

    console = say.console()
    report.export.check_name(form)
    if add and (to is None or check or again):
        raise BadInput("--add with --to alone", "--add", "python -m bench report --to reports --add")
    if check and form != report.export.MARKDOWN:
        raise BadInput("--check with --format markdown", repr(form), "--check alone")
    published = to or Path("reports")
    if check:
        problems = [
            problem for room in (report, energy_study, eyeriss, network_study) for problem in room.check(published)
        ]
        for problem in problems:
            console.print(problem, soft_wrap=True)
        if problems:
            raise typer.Exit(1)
        console.print("all pages agree with their records")
        return
    if again and not (records := published / report.RECORDS).is_dir():
        raise BadInput("pages that were published before for --again", f"no folder {records}", "`report --to` first")
    check_writable("--out", out) if to is None and not again else check_writable("--to", published)
    if form != report.export.MARKDOWN:
        folder = published if again else to or out
        runs = report.committed(folder) if again else report.checked(record for record, _ in report.collect(out))
        pages = report.export.write(runs, form, folder)
    elif again:
        pages = report.regenerate(published)
    else:
        runs_of_out = report.collect(out)
        pages = (
            report.publish(runs_of_out, to, add=add)
            if to
            else report.render([record for record, _ in runs_of_out], out)
        )
    for page in pages:
        console.print(f"report: {page}", soft_wrap=True)


@app.command()
def methods() -> None:
    """List the methods."""
    from methods import registry
    from shared.errors import BadInput

    for name in registry.names():
        try:
            method = registry.get(name)
        except BadInput as error:  # one broken third-party package must not hide the other methods
            typer.echo(f"{name:18} cannot be used: {error}")
        else:
            typer.echo(f"{name:18} {method.title}: {method.paper} ({_declared(method)})")


def _declared(method: Method) -> str:
    """The rows of the ECC paper's Table 1 that hold for the method."""
    if method.properties is None:
        return "control"
    return ", ".join(name.replace("_", " ") for name, holds in vars(method.properties).items() if holds) or "none"


@app.command()
def networks(
    to: Annotated[
        Path | None, typer.Option(help="Folder of the page of torchvision's networks, made anew; an hour.")
    ] = None,
) -> None:
    """List the networks; with --to, try torchvision's and write their page."""
    if to is not None:
        from bench.studies import networks as study

        check_writable("--to", to)
        say.console().print(f"report: {study.write(to)}", soft_wrap=True)
        return
    from shared import networks as zoo
    from shared.errors import BadInput

    for name in zoo.names():
        try:
            zoo.trained_on(name)
        except BadInput as error:  # one broken file must not hide the other networks
            typer.echo(f"{name:18} cannot be used: {error}")
        else:
            typer.echo(name)


@app.command()
def datasets() -> None:
    """List the data sets."""
    from shared import data

    typer.echo("\n".join(data.names()))


@app.command()
def devices() -> None:
    """List the platforms that can be asked for joules or another amount, and the sensors of this machine."""
    from shared import platforms
    from shared.errors import BadInput
    from shared.meters import probing

    for name in platforms.devices():
        for metric in ("energy", "latency"):
            try:
                platform = platforms.choose(name, metric)
            except BadInput as error:
                typer.echo(f"{name:8} {metric:8} none: {error}")
            else:
                meter = f"{platform.source} by {platform.meter}" + (f" on {platform.host}" if platform.host else "")
                typer.echo(f"{name:8} {metric:8} {meter}, calibration {platform.calibration}")
    typer.echo("\nSensors of this machine, each by a trial read:")
    for sensor in probing.probe():
        typer.echo(f"{'found' if sensor.found else 'none':6} {sensor.where} {sensor.what}: {sensor.detail}")


app.registered_commands += study.app.registered_commands

INTERRUPTED = 130  # a shell's exit code for Ctrl-C


def main() -> int:
    """Run the command line and return its exit code."""
    from shared.errors import BadInput

    print_any_text()
    try:
        code = app(standalone_mode=False) or 0
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except UsageError as error:
        message = error.format_message() if hasattr(error, "format_message") else error  # names the option, too
        print(f"{message}; try python -m bench --help", file=sys.stderr)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        from bench.run.trouble import FullDisk, of  # imports numpy, which `--help` does not need
        from shared.meters import MeterError

        full = isinstance(error, FullDisk) or ((trouble := of(error)) is not None and trouble.kind == "disk")
        if not full and not isinstance(error, MeterError):
            raise
        problem = f"the disk can't be written: {error}" if full else str(error)
        print(f"{problem}; what was read and trained is kept, the same command goes on", file=sys.stderr)
        return 1
    if code == INTERRUPTED:  # newer typer returns this code, older typer raises
        print("interrupted; finished runs are kept, the same command goes on", file=sys.stderr)
    return code
