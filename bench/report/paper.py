"""The page `paper.md`: the ECC paper's evaluation item by item, claimed beside obtained, or the command for it.

Yang, Zhu, Liu, CVPR 2019. Claims come from published.toml, obtained figures from committed records and from the data of
the study of energy models; nothing else enters the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report.cells import Notes
from bench.report.collect import Page
from bench.report.paper_experiments import (
    NOT_RUN,
    PROTOCOL,
    Experiment,
    experiments,
    results_table,
    statements,
    statements_table,
)
from bench.report.paper_parts import (
    dense_table,
    errors_table,
    fine_tuning_tables,
    hidden_layers_table,
    properties_table,
    widths_table,
)
from bench.report.render import environment, tidy
from bench.report.text import table
from shared import networks
from shared.errors import BadInput

NAME = "paper.md"
STUDY = "records/energy-models.json"
_TITLES = {
    "Figure 4": "Figure 4: MobileNet on ImageNet",
    "Figure 5": "Figure 5: AlexNet on ImageNet",
    "Table 2": "Table 2: ERFNet on Cityscapes",
}


def page_text(made: Sequence[Page], reports_dir: Path) -> str:
    """The page that the committed pages `made` and the study's data in `reports_dir` make.

    Raises BadInput when that data is no JSON of a study.
    """
    study, found = _study(reports_dir / STUDY), experiments(made)
    properties, differing = properties_table()
    tables, notes = fine_tuning_tables(made)
    text = (
        environment()
        .get_template("paper.md.jinja")
        .render(
            protocol=PROTOCOL,
            overview=_overview(found, study),
            properties=properties,
            differing=differing,
            dense=dense_table(found, study),
            errors=errors_table(study),
            hidden_layers=hidden_layers_table(study),
            studied=study is not None,
            sections={item: _section(item, found) for item in _TITLES},
            widths=widths_table(made),
            widths_claims=[
                f"{each.network}, {each.platform}: {entry['text']} ({entry['place']})"
                for each in found
                for entry in statements(each.network, each.dataset, each.platform)
                if entry.get("figure") == 6
            ],
            fine_tuning=tables,
            fine_tuning_notes=notes,
        )
    )
    return tidy(text)


def _study(path: Path) -> dict[str, Any] | None:
    """The data of `python -m bench fit`, None where it was never run."""
    if not path.is_file():
        return None
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(study["parts"], dict):
            raise TypeError("parts that are no table")
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"the figures of a study in {path}", str(error), "python -m bench fit") from None
    return dict(study)


def _overview(found: Sequence[Experiment], study: dict[str, Any] | None) -> str:
    """Every item of the evaluation with where it stands."""
    of_study = f"{NOT_RUN} (python -m bench fit)" if study is None else "obtained: [simulated](energy-models.md)"
    rows = [
        ["Table 1", "properties of methods", "declared in the methods' code"],
        ["Figure 2", "error of the energy model", of_study],
        ["Figure 3", "error with hidden layers", of_study],
        *([each.item, f"{each.network} on {each.dataset}, {each.platform}", each.state] for each in found),
        ["Figure 6", "widths, tx2", "of the runs for Figures 4 and 5"],
    ]
    return table(["Item of the paper", "what", "here"], rows, left=3)


def _section(item: str, found: Sequence[Experiment]) -> dict[str, Any]:
    """Tables, notes and commands of one item."""
    notes, here = Notes(), [each for each in found if each.item == item]
    return {
        "title": _TITLES[item],
        "place": here[0].place,
        "needs": here[0].needs,
        "parts": [
            {
                "platform": each.platform,
                "results": results_table(each, notes),
                "statements": statements_table(each),
                "pages": [page.name for page in each.pages],
                "alike": [page.name for page in each.alike],
            }
            for each in here
        ],
        "weights_command": here[0].weights_command,
        "weights_file": networks.published_weights(here[0].network, here[0].dataset),
        "commands": [each.command for each in here if not each.pages],
        "embedded_commands": [each.embedded_command for each in here if not each.alike],
        "notes": notes.lines(),
    }
