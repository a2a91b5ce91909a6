"""Plots of the energy-model study, from its figures alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.energy_study.plan import DEFAULT_DECAY, DEPTHS, Part, Plan, readings
from bench.report.style import BUDGETS, FAINT, INK, bare, house_style, new_figure, svg
from shared.energy.terms import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN = 9.4
CHAIN = KINDS[0]
_DASHES = ("-", (0, (4, 2)))


def reading_title(scaled: bool, decay: float) -> str:
    """How a page names a way of reading the weight decay."""
    return f"{'mean 1' if scaled else 'joules'}, {decay_title(decay)}"


def decay_title(decay: float) -> str:
    """The decay as the paper would print it: 1/8000, and not 0.000125."""
    return f"{decay:g}" if decay >= 1e-3 else f"1/{1 / decay:.0f}"


def plots(data: dict[str, Any], plan: Plan, name: str) -> dict[str, bytes]:
    """File name -> SVG of every plot of the page."""
    made = {"adam": adam_data(data, plan), "samples": samples_data(data, plan)}
    for title, scaled in (("depth-raw", False), ("depth-scaled", True)):
        made[title] = depth_data(data, plan, scaled)
    return {f"{name}-{title}.svg": draw(content) for title, content in made.items()}


def adam_data(data: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Adam without hidden layers on the first network: a line per reading, least squares as a level."""
    network = plan.networks[0][0]

    def panel(platform: str) -> dict[str, Any]:
        lines = [
            {
                "title": reading_title(scaled, decay),
                "colour": plan.decays.index(decay),
                "dash": int(scaled),
                "points": _curve(data, Part("adam", network, platform, CHAIN, scaled, decay)),
            }
            for scaled, decay in readings(plan, network, CHAIN)
        ]
        return {"title": f"{network}, {platform}", "lines": lines, "level": _level(data, network, platform)}

    caption = "No hidden layer, all training rows; targets and weight decay. Simulated joules."
    return _figure("Error of Adam against its iterations", caption, "Adam iterations", [[*map(panel, plan.platforms)]])


def depth_data(data: dict[str, Any], plan: Plan, scaled: bool) -> dict[str, Any]:
    """Depths under the published code's decay: a row of panels per network."""

    def panel(network: str, platform: str) -> dict[str, Any]:
        lines = [
            {
                "title": f"{depth or 'no'} hidden layer{'s' * (depth != 1)}",
                "colour": depth,
                "dash": 0,
                "points": _curve(data, Part("depth", network, platform, CHAIN, scaled, DEFAULT_DECAY, depth)),
            }
            for depth in DEPTHS
        ]
        return {"title": f"{network}, {platform}", "lines": lines, "level": _level(data, network, platform)}

    targets = "of mean 1" if scaled else "in joules"
    caption = f"{plan.depth_rows:,} rows, targets {targets}, weight decay {DEFAULT_DECAY:g}. Simulated joules."
    panels = [[panel(network, platform) for platform in plan.platforms] for network, _ in plan.networks]
    return _figure("Error by hidden layers against iterations", caption, "Adam iterations", panels)


def samples_data(data: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Least squares on ever more rows: a line per network and kind of terms."""

    def panel(platform: str) -> dict[str, Any]:
        lines = []
        for colour, (network, _) in enumerate(plan.networks):
            for dash, kind in enumerate(KINDS):
                sizes = data["parts"][Part("fit", network, platform, kind).name]["sizes"]
                points = [[int(size), 100 * error] for size, error in sizes.items()]
                lines.append({"title": f"{network}, {kind}", "colour": colour, "dash": dash, "points": points})
        return {"title": platform, "lines": lines, "level": None}

    caption = "Non-negative least squares. Simulated joules."
    return _figure("Error against training rows", caption, "training rows", [[*map(panel, plan.platforms)]])


def draw(data: dict[str, Any]) -> bytes:
    """The SVG of the plot that `data` describes: panels of lines on logarithmic axes."""
    rows = data["panels"]
    with house_style():
        figure = new_figure(WIDTH_IN, 1.15 + 2.25 * len(rows))
        figure.suptitle(data["caption"], fontsize=8.5, color=FAINT, x=0.012, ha="left")
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey="row")
        for row, panels in zip(grid, rows, strict=True):
            for axes, panel in zip(row, panels, strict=True):
                _panel(axes, panel)
            row[0].set_ylabel("held-out error, %")
            # The panels of a row share this axis. Beyond 100 % an estimate is no estimate.
            row[0].set_ylim(top=min(100, row[0].get_ylim()[1]))
        for axes in grid[-1]:
            axes.set_xlabel(data["x_label"])
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.8)
        return svg(figure, data["title"], data)


def _panel(axes: Axes, panel: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_title(panel["title"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    for index, line in enumerate(panel["lines"]):
        if line["points"]:
            x, y = zip(*line["points"], strict=True)
            colour, marker = BUDGETS[line["colour"] % len(BUDGETS)]
            every = max(1, len(x) // 8)  # from another point for each line, so that lines on one another are seen
            look: dict[str, Any] = {"marker": marker, "ms": 3.6, "markevery": (index % every, every)}
            axes.plot(x, y, color=colour, lw=1.4, ls=_DASHES[line["dash"]], label=line["title"], **look)
    if panel["level"] is not None:
        axes.axhline(panel["level"], color=INK, lw=1.1, ls=(0, (1, 2)), label="least squares, all training rows")
    plain: Callable[[float, int], str] = lambda value, _: f"{value:,.10g}"  # noqa: E731
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(plain))
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bare(axes, vertical_grid=True)


def _figure(title: str, caption: str, x_label: str, panels: list[list[dict[str, Any]]]) -> dict[str, Any]:
    return {"title": title, "caption": caption, "x_label": x_label, "panels": panels}


def _curve(data: dict[str, Any], part: Part) -> list[list[float]]:
    return [[step, 100 * error] for step, error in data["parts"][part.name]["curve"]]


def _level(data: dict[str, Any], network: str, platform: str) -> float:
    return 100 * float(data["parts"][Part("fit", network, platform, CHAIN).name]["error"])
