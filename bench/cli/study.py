"""Commands for dense weights, energy models and learning rates, which runs use, and for authors of methods.

As in bench.cli.app, imports of torch happen inside the commands.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console as say
from bench.cli.options import CORES, Jobs, check_writable, with_options
from bench.setup.request import Request

if TYPE_CHECKING:
    from rich.console import Console

    from bench.setup.setup import Setup

app = typer.Typer()


@app.command()
@with_options("network", "dataset", "data", "network_arg", "image_size")
def dense(
    request: Request,
    weights: Annotated[
        Path | None, typer.Option(help="Take them from this checkpoint: safetensors, or a state dict saved by torch.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Train anew and write weights and record into this folder.")] = None,
) -> None:
    """Show the dense weights, trained first where there are none; with --weights, test those of a checkpoint and keep
    them for this network and data; with --to, train anew.
    """
    from rich.progress import Progress

    from bench.setup import dense as dense_weights
    from bench.setup import workload
    from shared.cache import checked_cache_dir
    from shared.errors import BadInput

    work = workload.of(request)
    if weights is not None and to is not None:
        raise BadInput("either --weights or --to", "both", "--weights alone, which keeps them in the cache folder")
    if to is not None:
        check_writable("--to", to)
    # Before the images are read: a bad checkpoint shows at once.
    model = None if weights is None else dense_weights.network_from(weights, work)
    checked_cache_dir()
    images = work.load_data(None if request.data is None else Path(request.data))
    name = images.objective.score_name
    console = say.console()
    say.check_files(images, console)

    def show(tested: dense_weights.DenseWeights) -> None:
        score = f"{100 * tested.accuracy:.2f} % {name} on test, weights {tested.fingerprint}"
        console.print(f"{request.network} on {request.dataset}: {score}")

    if weights is not None and model is not None:
        with say.computing("testing dense weights"):
            show(dense_weights.load(model, weights, work, images))
        folder = dense_weights.loaded_folder(work, images)
        console.print(f"kept in {folder}; without that folder other weights are taken again", soft_wrap=True)
        return
    with say.computing("training dense weights"), Progress(console=console) as bars:
        row = bars.add_task("", total=None, visible=False)

        def progress(what: str, done: int, total: int) -> None:
            bars.update(row, description=what, completed=done, total=total, visible=True)
            if not console.is_terminal and done % 500 == 0:
                console.print(f"{what}: {done} of {total} iterations")

        if to is None:
            show(dense_weights.obtain(work, images, progress))
        else:
            model, record = dense_weights.train(work, images, progress)
            path = dense_weights.write(dense_weights.stored(model), record, to)
            console.print(f"{path}: {100 * record['test_accuracy']:.2f} % {name} on test", soft_wrap=True)


@app.command()
@with_options(
    "device",
    "network",
    "dataset",
    "protocol",
    "metric",
    "meter",
    "energy_model",
    "budgets",
    "bits",
    "inference_batch",
    "network_arg",
    "image_size",
)
def profile(
    request: Request,
    layers: Annotated[bool, typer.Option("--layers", help="Show where the dense network's amount goes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the figure with --layers.")] = Path("runs"),
) -> None:
    """Profile the platform, fit the energy model and show its errors; with --budgets also those near each budget."""
    from bench.setup.budgets import distinct
    from bench.setup.plan import budget_texts
    from bench.setup.setup import asked_platform, prepare
    from shared.errors import BadInput
    from shared.platforms import ExactPlatform

    console, texts = say.console(), budget_texts(request)
    if layers and not isinstance(asked := asked_platform(request), ExactPlatform):
        raise BadInput("a simulated or counted platform for --layers", f"a {asked.source} one", "--meter sim")
    setup = prepare(request, console.print)
    console.print(say.first_line(setup))
    if layers:
        _show_layers(setup, out, console)
    console.print(
        f"{setup.fit.kind} model, {len(setup.profile.amounts):,} readings: "
        f"{100 * setup.fit.relative_error:.2f} % held-out error, "
        f"skill {setup.fit.skill:.3f}, dense {100 * setup.fit.dense_relative_error:+.1f} %, "
        f"reachable {setup.reach}"
    )
    for budget in distinct(texts or (), setup.reach):
        near = setup.near(budget)
        low, high = near.bias_interval
        console.print(
            f"near {budget.name}: factor {near.factor:.4f}, mean error {near.error:.2%}, bias {near.bias:+.2%} "
            f"({low:+.2%} to {high:+.2%}), most optimistic {near.most_optimistic:+.2%}, {near.samples:,} networks"
        )
        if not (reach := setup.reach_at(budget)).holds(budget.amount):
            console.print(f"near {budget.name}: out of reach of the energy model corrected near it, {reach}")


def _show_layers(setup: Setup, out: Path, console: Console) -> None:
    """Print where the dense network's amount goes, and draw it."""
    import numpy as np

    from bench.report import layers
    from bench.report.text import table
    from bench.setup.names import slug
    from shared.cache import atomic_write
    from shared.platforms import ExactPlatform

    platform, request = setup.platform, setup.request
    assert isinstance(platform, ExactPlatform)
    check_writable("--out", out)
    dense = np.array([setup.structure.upper_bounds])
    amounts = layers.frame(platform.breakdown(setup.subject, dense, setup.inference_batch))
    console.print(table(layers.layers_table(amounts, platform.unit)), soft_wrap=True)
    name = slug(setup.workload.label, request.dataset, platform.name, request.metric)
    path = out / f"{name}-batch-{setup.inference_batch}-layers.svg"
    title = (
        f"{request.network} on {request.dataset}  ·  {platform.name}, {platform.source}, batch {setup.inference_batch}"
    )
    atomic_write(path, layers.plot(amounts, platform.unit, title))
    console.print(f"figure: {path}", soft_wrap=True)


@app.command()
@with_options("device", "network", "dataset", "network_arg", "image_size")
def table(request: Request, to: Annotated[Path, typer.Argument(help="The JSON file to write.")]) -> None:
    """Read every operation of a network on its own and write NetAdapt's lookup table; say how far off its sums are."""
    import torch

    from bench.setup.setup import prepare
    from methods.netadapt import readings, table_file
    from shared import platforms
    from shared.errors import BadInput

    if to.is_dir():
        raise BadInput("a file for the table", f"the folder {to}", str(to / "lookup.json"))
    check_writable("the table's folder", to.parent)
    platform, console = platforms.get(request.device), say.console()
    setup = prepare(replace(request, meter="sim"))
    console.print(say.first_line(setup))
    lookup = readings.table_from_platform(platform, setup.structure, setup.inference_batch)
    table_file.save(lookup, to)
    sums = lookup(setup.structure.positions(torch.from_numpy(setup.profile.widths))).numpy()
    errors = sums / setup.profile.amounts - 1
    dense = lookup.energy(setup.structure, setup.structure.upper_bounds) / setup.reach.dense_reading - 1
    console.print(
        f"{to}: {platform.queries:,} readings of single operations; their sum over readings of whole networks: "
        f"{100 * float(errors.mean()):+.1f} % in the mean of {len(errors):,}, dense {100 * dense:+.1f} %"
    )


@app.command()
@with_options("methods", "protocol", "device", "network", "dataset", "network_arg", "image_size")
def tune(
    request: Request,
    jobs: Jobs = CORES,
    to: Annotated[Path, typer.Option(help="Folder of the page with the grid.")] = Path("runs"),
) -> None:
    """Choose a protocol's learning rate on the search split with the controls alone; print the methods' beside it."""
    from bench.studies import tuning

    check_writable("--to", to)
    with say.computing("tuning"):
        tuning.tune(replace(request, meter="sim"), jobs=jobs, folder=to, console=say.console())


@app.command()
def fit(
    to: Annotated[Path, typer.Option(help="Folder of the page and its data.")] = Path("runs"),
    jobs: Jobs = CORES,
) -> None:
    """Study the energy models as the ECC paper's section 4.2 does, on the simulated platforms; some eight minutes."""
    from bench.studies import energy_models as energy_study

    check_writable("--to", to)
    console = say.console()
    with say.computing("studying energy models"):
        page = energy_study.write(to, jobs=jobs, say=console.print)
    console.print(f"report: {page}", soft_wrap=True)


@app.command()
def eyeriss(to: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("runs")) -> None:
    """Say where the papers' networks spend their joules on the chip Eyeriss, beside what its authors say."""
    from bench.studies import eyeriss as study

    check_writable("--to", to)
    say.console().print(f"report: {study.write(to)}", soft_wrap=True)


@app.command(name="new-method")
def new_method(
    name: Annotated[str, typer.Argument(help="Its id: small letters, digits, hyphens.")],
    to: Annotated[Path, typer.Option(help="Folder in which its package is made.")] = Path(),
) -> None:
    """Write the skeleton of a method of your own, which already runs."""
    from bench.authors import skeleton

    files = skeleton.write(name, to)
    for path in files:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: python -m pip install --no-deps -e {files[0].parent}, then python -m bench check-method {name}")


@app.command(name="check-method")
def check_method(name: Annotated[str, typer.Argument(help="`python -m bench methods` lists them.")]) -> None:
    """Check a method against every rule of the contract, and say how to mend what it breaks."""
    from bench.authors import conformance

    broken = 0
    for finding in conformance.check(name):
        if finding.problem is None:
            typer.echo(f"ok    {finding.rule}")
        else:
            broken += 1
            typer.echo(f"FAIL  {finding.rule}: {finding.problem}; try {finding.mend}")
    if broken:
        raise typer.Exit(1)
    typer.echo(f"{name} keeps the contract")
