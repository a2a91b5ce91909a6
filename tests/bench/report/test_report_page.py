"""Whole pages: what they say, that a Markdown reader takes them in, and that they are the same every time."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from bench.record.model import Record, load
from bench.report import checked, render, summary_table
from bench.report.page import page_text
from bench.report.provenance import digest
from shared.errors import BadInput

Make = Callable[..., Record]
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def text_of(records: list[Record], records_folder: str | None = None) -> str:
    return page_text(checked(records), records_folder=records_folder)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, quick_runs_of_module: list[Record]) -> Path:
    """A folder with the pages of the quick runs."""
    folder = tmp_path_factory.mktemp("pages")
    (page,) = render(quick_runs_of_module, folder)
    assert page == folder / "mobilenet-fashion-mnist-1080ti-simulated-quick.md"
    return page


def test_a_page_and_its_plots_lie_side_by_side(rendered: Path) -> None:
    names = {path.name.removeprefix(rendered.stem) for path in rendered.parent.iterdir()}
    assert names == {".md", "-accuracy.svg", "-widths.svg", "-trace-ecc.svg"}
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", rendered.read_text())
    assert {rendered.parent / link for link in links} == set(rendered.parent.glob("*.svg"))


def test_first_lines_say_platform_source_protocol_and_seeds(rendered: Path) -> None:
    title, _, platform, protocol, seeds, _, alert, ranks = rendered.read_text().splitlines()[:8]
    assert title == "# mobilenet on fashion-mnist: 1080ti, simulated, protocol quick"
    assert "**simulated**" in platform and "none of the joules on this page comes from a meter" in platform
    assert "Joules are per image, at input 1×28×28 and inference batch 64." in platform
    assert "800 training and 300 fine-tuning iterations of batch 64" in protocol
    assert seeds == "- **Seeds** 0."
    assert alert == "> [!IMPORTANT]" and "ranks nothing" in ranks
    # sqrt(0.9251 * 0.0749 / 10,000) and sqrt(0.8402 * 0.1598 / 10,000)
    assert "0.26 to 0.37 points" in ranks


def test_energy_model_box(rendered: Path) -> None:
    text = rendered.read_text()
    assert "10,000 width vectors" in text
    assert "Held-out error 3.10 %" in text and "skill 0.12" in text and "Ê is −1.4 % off" in text


def test_every_table_has_whole_rows(rendered: Path) -> None:
    html = MARKDOWN.render(rendered.read_text())
    bodies = re.findall(r"<table>(.*?)</table>", html, re.DOTALL)
    # main; landing; two about the energy model near budgets; two per budget; dense and its cost; widths; files
    assert len(bodies) == 12
    for body in bodies:
        assert len({len(re.findall("<t[hd]", row)) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)}) == 1
    assert not re.search(r"^\|", re.sub(r"<[^>]+>", "", html), re.MULTILINE)  # no table was left as text


def test_a_hostile_reason_stays_text(rendered: Path) -> None:
    html = MARKDOWN.render(rendered.read_text())
    assert "E = 0.0041 J | above *any* &lt;budget&gt;" in html


def test_foot_holds_what_it_takes_to_reproduce(rendered: Path, quick_runs: list[Record]) -> None:
    foot = rendered.read_text().split("## To make these numbers again")[1]
    for wanted in (
        "python -m bench run --methods ecc,netadapt,amc --device 1080ti",
        "0123456789abcdef (clean)",
        "torch 2.9.0",
        "Linux x86_64",
        "**threads** 1",
        "learning rate 0.002",
        "simulator v1 0123abcd",
        *(f"`{value}`" for value in quick_runs[0].fingerprints.values()),
        *(digest(record) for record in quick_runs),
        *(f"{r.method}-{'dense' if r.budget is None else r.budget.fraction}-0.json" for r in quick_runs),
    ):
        assert wanted in foot, wanted


def test_a_dirty_commit_and_mixed_hosts_are_told(make_record: Make) -> None:
    base = make_record().environment
    text = text_of([make_record("ecc"), make_record("amc", environment=base | {"dirty": True, "threads": 2})])
    assert "0123456789abcdef (clean) (ecc); 0123456789abcdef with uncommitted changes (dirty) (amc)" in text
    assert "**threads** 1 (ecc); 2 (amc)" in text


def test_measured_joules_are_never_called_simulated(make_record: Make) -> None:
    change = {"source": "measured", "meter": "nvml", "calibration": "driver 555"}
    text = text_of([make_record(platform=make_record().platform.model_copy(update=change))])
    assert "**measured**" in text and "measured mJ" in text and "simulat" not in text


def test_a_protocol_that_ranks_has_no_warning_but_the_sampling_error(seeded_runs: list[Record]) -> None:
    text = text_of(seeded_runs)
    assert "ranks nothing" not in text and "[!IMPORTANT]" not in text
    assert "binomial standard error" in text and "need several seeds" not in text
    assert "89.00 ± 1.00" in text and "12 runs" in text


def test_nothing_is_claimed_where_the_paper_claims_nothing(quick_runs: list[Record]) -> None:
    assert "Claimed" not in text_of(quick_runs) and "claimed" not in text_of(quick_runs)


def test_claimed_figures_stand_beside_obtained_ones(make_record: Make) -> None:
    network = {"name": "erfnet"}
    text = text_of([make_record("ecc", network=network, dataset="cityscapes")])
    claimed = text.split("## Claimed by the paper")[1]
    assert re.search(r"mean IoU, % +\| +72\.20 \| +92\.34 \|", claimed)
    assert re.search(r"joules per image +\| +1\.9708 \| +0\.0125 \|", claimed)
    assert re.search(r"Claimed mean IoU, % +\| 1\.3843 J \| 1\.4451 J \| 1\.5238 J \| 1\.6519 J \|", claimed)
    assert re.search(r"NetAdapt +\| +63\.61 \| +65\.23 \| +68\.65 \| +71\.14 \|", claimed)
    assert "16 % energy savings" in claimed and "19 % energy savings" not in claimed
    assert "63.61" not in text.split("## Claimed by the paper")[0]


def test_claims_are_those_of_the_very_platform(make_record: Make) -> None:
    tx2 = make_record().platform.model_copy(update={"name": "tx2"})
    text = text_of([make_record("ecc", dataset="imagenet", platform=tx2)])
    assert "0.0487" in text and "0.2877" not in text and "2.6 % higher accuracy" in text
    cpu = make_record().platform.model_copy(update={"name": "cpu"})
    assert "Claimed" not in text_of([make_record("ecc", dataset="imagenet", platform=cpu)])


def test_a_page_of_misses_alone_still_stands(make_record: Make) -> None:
    text = text_of([make_record("amc", 0.25, reason="can't"), make_record("ecc", 0.25, reason="won't", cost=None)])
    assert "miss¹" in text and "miss²" in text and ".svg" not in text


def test_rendering_depends_on_records_alone(rendered: Path, quick_runs: list[Record], tmp_path: Path) -> None:
    import matplotlib

    random.Random(3).shuffle(quick_runs)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "none", "axes.facecolor": "red"}):
        render(quick_runs, tmp_path)
    for path in rendered.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_plots_that_a_page_no_longer_has_are_removed(make_record: Make, tmp_path: Path) -> None:
    stem = "mobilenet-fashion-mnist-1080ti-simulated-quick"
    (tmp_path / f"{stem}-trace-ecc.svg").write_text("old")
    (tmp_path / "mine.svg").write_text("other")
    render([make_record(reason="missed")], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.md", "mine.svg"}


def test_nothing_is_written_when_records_are_refused(make_record: Make, tmp_path: Path) -> None:
    odd = make_record("amc", fingerprints=make_record().fingerprints | {"profile": "p2"})
    with pytest.raises(BadInput):
        render([make_record("ecc"), odd], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_summary_for_a_terminal(quick_runs: list[Record], seeded_runs: list[Record]) -> None:
    text = summary_table([*quick_runs, *seeded_runs])
    first, second = text.split("\n\nmobilenet on fashion-mnist; 1080ti, simulated joules per image; protocol standard")
    assert "protocol quick, seed 0" in first and first.splitlines()[0].endswith("It ranks nothing.")
    assert "| AMC" in first and "miss¹" in first and "¹ **Miss**, AMC at 0.25" in first
    assert "seeds 0, 1, 2" in second and "89.00 ± 1.00" in second and "ranks nothing" not in second


def test_what_runs_noted_is_shown_and_long_notes_are_left_to_the_record(make_record: Make) -> None:
    text = text_of([make_record(notes={"kept_units": [1, 2], "history": list(range(100)), "bound": {"low": 0.2}})])
    assert "**ECC, 0.35** – bound: low 0.2; history: see the record; kept units: 1 2" in text


def test_methods_of_weights_have_a_table_of_their_own(make_record: Make) -> None:
    channels = [make_record(method, fraction) for method in ("ecc", "amc") for fraction in (0.35, 0.25)]
    beside = make_record("ecc", 0.9)
    weights = make_record("wsp-weights", 0.9, granularity="weights")
    text = text_of([*channels, beside, weights])
    first, second = text.split("Methods that remove single weights leave the feature maps")
    assert "wsp-weights" not in first.split("## Accuracy against energy")[1]
    own = second.split("![")[0].split("Landing")[0]
    assert "wsp-weights" in own and "| ECC" in own and "0.9 =" in own and "0.25 =" not in own and "AMC" not in own
    assert "Methods that remove single weights" not in text_of(channels)
    alone = text_of([weights])
    assert alone.count("top-1 accuracy in % at budget") == 1 and "Methods that remove single weights" in alone
    assert summary_table([*channels, weights]).count("top-1 accuracy in % at budget") == 2


def test_a_records_digest_is_that_of_its_file() -> None:
    files = sorted((Path(__file__).parents[3] / "reports" / "records").glob("*/*.json"))[::10]
    assert files
    for file in files:
        assert digest(load(file)) == hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def test_a_page_without_a_budget_has_its_table(make_record: Make) -> None:
    text = text_of([make_record("dense", None)])
    assert text.count("top-1 accuracy in % at budget") == 1 and "Dense, same iterations" in text
    assert "Dense, same iterations" in summary_table([make_record("dense", None)])


def test_landing_counts_networks_that_lost_weights(make_record: Make) -> None:
    record = make_record("wsp-weights", 0.9, granularity="weights")
    assert record.landing is not None
    landing = record.landing.model_copy(update={"removed_weights": 500})
    text = text_of([record.model_copy(update={"landing": landing})])
    assert "Cut further: 1 of 1 networks" in text and "weights removed" in text and "or weights, where" in text
