"""The command line. Exit codes: 0 success, 1 a plan with a miss or a failure, 2 bad arguments (one line on stderr,
nothing written).

Imports of torch and of everything that stands on it happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import cli_authors, say
from bench.options import (
    Budgets,
    Compile,
    Compute,
    Data,
    Dataset,
    Device,
    EnergyModel,
    Executor,
    Meter,
    Methods,
    Metric,
    Network,
    Out,
    ProtocolName,
    Repair,
    Seeds,
    TrainingJobs,
    check_built,
    check_writable,
    processes,
)

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
def run(
    methods: Methods = "ecc,netadapt,amc",
    device: Device = "1080ti",
    network: Network = "mobilenet",
    dataset: Dataset = "fashion-mnist",
    protocol: ProtocolName = "quick",
    budgets: Budgets = None,
    seeds: Seeds = None,
    data: Data = None,
    metric: Metric = "energy",
    meter: Meter = "auto",
    energy_model: EnergyModel = "bilinear",
    compute: Compute = "cpu",
    compile: Compile = False,
    executor: Executor = "local",
    out: Out = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Repeat runs that are finished already.")] = False,
    repair: Repair = False,
    jobs: TrainingJobs = None,
) -> None:
    """Compress with each method at each budget with each seed, and write a report."""
    from bench import plan, report, runner
    from bench.store import Store

    console = say.console()
    check_built(executor=executor)
    check_writable("--out", out)
    asked = (methods, device, network, dataset, protocol, budgets, seeds, data, metric, meter, energy_model)
    request = plan.Request(*asked, repair=repair, compute=compute, compile=compile)
    made = plan.make(request, lambda line: console.print(line, highlight=False), to_train=True)
    console.print(say.first_line(made.ground), highlight=False)
    say.check_files(made.ground.dataset, console)
    jobs = processes(jobs, compute)
    records = runner.run(made, Store(out), jobs=jobs, fresh=fresh, command=request.command, console=console)
    pages = report.render(records, out)
    console.print(report.summary_table(records), highlight=False, markup=False, soft_wrap=True)
    for page in pages:
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    misses = sum(record.status == "miss" for record in records)
    if misses:
        raise typer.Exit(1)


@app.command(name="plan")
def plan_(
    methods: Methods = "ecc,netadapt,amc",
    device: Device = "1080ti",
    network: Network = "mobilenet",
    dataset: Dataset = "fashion-mnist",
    protocol: ProtocolName = "quick",
    budgets: Budgets = None,
    seeds: Seeds = None,
    data: Data = None,
    metric: Metric = "energy",
    meter: Meter = "auto",
    energy_model: EnergyModel = "bilinear",
    compute: Compute = "cpu",
    compile: Compile = False,
    executor: Executor = "local",
    jobs: TrainingJobs = None,
) -> None:
    """Say what `run` with the same arguments would cost, without running it."""
    from bench import cost, plan
    from bench.progress import minutes
    from shared.data import in_files

    check_built(executor=executor)
    console = say.console()
    asked = (methods, device, network, dataset, protocol, budgets, seeds, data, metric, meter, energy_model)
    request = plan.Request(*asked, compute=compute, compile=compile)
    made = plan.make(request, lambda line: console.print(line, highlight=False))
    console.print(say.first_line(made.ground), highlight=False)
    with say.computing("timing a plan"):  # by training steps
        estimate = cost.estimate(made, made.jobs)
        told = cost.missing_weights(made) if data or not in_files(dataset) else cost.without_data(made)
    if told is not None:
        console.print(told, highlight=False, soft_wrap=True)
    for job, seconds in estimate.job_seconds.items():
        budget = "no budget" if job.budget is None else f"{job.budget.amount:.4g} {made.ground.unit}"
        console.print(f"  {job.name}: {budget}, about {minutes(seconds)}", highlight=False)
    console.print(estimate.describe(processes(jobs, compute)), highlight=False)


@app.command(name="report")
def report_(
    out: Out = Path("runs"),
    to: Annotated[Path | None, typer.Option(help="Publish into this folder, with copies of the records.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Rewrite the pages in --to from its own records.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a page in --to differs from its records.")] = False,
    form: Annotated[
        str,
        typer.Option("--format", help="markdown; csv or latex: a file per page, below --to where it is given."),
    ] = "markdown",
) -> None:
    """Regenerate reports from records."""
    from bench import energy_study, report
    from shared.errors import BadInput

    console = say.console()
    report.export.check_name(form)
    if check and form != report.export.MARKDOWN:
        raise BadInput("--check with --format markdown", repr(form), "--check alone")
    if check:
        folder = to or Path("reports")
        problems = [*report.check(folder), *energy_study.check(folder)]
        for problem in problems:
            console.print(problem, highlight=False, soft_wrap=True)
        if problems:
            raise typer.Exit(1)
        console.print("all pages agree with their records")
        return
    if again and not (published := (to or Path("reports")) / report.RECORDS).is_dir():
        raise BadInput("pages that were published before for --again", f"no folder {published}", "`report --to` first")
    check_writable("--out", out) if to is None and not again else check_writable("--to", to or Path("reports"))
    if form != report.export.MARKDOWN:
        folder = to or (Path("reports") if again else out)
        runs = report.committed(folder) if again else report.checked(record for record, _ in report.collect(out))
        pages = report.export.write(runs, form, folder)
    elif again:
        pages = report.regenerate(to or Path("reports"))
    else:
        found = report.collect(out)
        pages = report.render([record for record, _ in found], out) if to is None else report.publish(found, to)
    for page in pages:
        console.print(f"report: {page}", highlight=False, soft_wrap=True)


@app.command()
def methods() -> None:
    """List the methods."""
    from methods import registry
    from shared.errors import BadInput

    for name in registry.names():
        try:
            method = registry.get(name)
        except BadInput as error:  # a broken package of someone else's hides no other method
            typer.echo(f"{name:18} cannot be used: {error}")
        else:
            typer.echo(f"{name:18} {method.title}: {method.paper} ({_declared(method)})")


def _declared(method: Method) -> str:
    """The rows of the ECC paper's Table 1 that hold for the method."""
    if method.properties is None:
        return "control"
    return ", ".join(name.replace("_", " ") for name, holds in vars(method.properties).items() if holds) or "none"


@app.command()
def networks() -> None:
    """List the networks."""
    from shared import networks as known

    typer.echo("\n".join(known.names()))


@app.command()
def datasets() -> None:
    """List the data sets."""
    from shared import data

    typer.echo("\n".join(data.names()))


@app.command()
def devices() -> None:
    """List the platforms that can be asked for joules or seconds, and the sensors of this machine."""
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
                what = f"{platform.source} by {platform.meter}" + (f" on {platform.host}" if platform.host else "")
                typer.echo(f"{name:8} {metric:8} {what}, calibration {platform.calibration}")
    typer.echo("\nSensors of this machine, each by a trial read:")
    for finding in probing.probe():
        typer.echo(f"{'found' if finding.found else 'none':6} {finding.where} {finding.what}: {finding.detail}")


app.registered_commands += cli_authors.app.registered_commands

INTERRUPTED = 130  # as a shell has it for Ctrl-C


def main() -> int:
    """Run the command line and return its exit code."""
    from shared.errors import BadInput

    try:
        code = app(standalone_mode=False) or 0
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except UsageError as error:
        told = error.format_message() if hasattr(error, "format_message") else error  # the option's name, too
        print(f"{told}; try python -m bench --help", file=sys.stderr)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        from shared.meters import MeterError  # brings numpy, which `--help` needs not

        if not isinstance(error, MeterError):
            raise
        print(f"{error}; what was read and trained is kept, the same command goes on", file=sys.stderr)
        return 1
    if code == INTERRUPTED:  # newer typer returns it, older typer raises
        print("interrupted; finished runs are kept, the same command goes on", file=sys.stderr)
    return code
