"""The benchmark as a person runs it, `python -m bench`; `load_compressed`, `load_records`, `rank` for its results."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

# The packages that lie beside this one, wherever a user's own file or folder of the same name would be found first.
for _name in {"methods", "shared"} - sys.modules.keys():
    _spec = spec_from_file_location(_name, Path(__file__).parents[1] / _name / "__init__.py")
    assert _spec is not None and _spec.loader is not None
    sys.modules[_name] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])


def load_compressed(record_folder: Path | str) -> nn.Module:
    """The compressed network of a finished run as a plain module in evaluation mode.

    `record_folder` holds `record.json` and `network.safetensors`. Raises shared.errors.BadInput when the run is a
    miss without a network, or its file is not the one that the record hashes.
    """
    from bench.record.loading import load  # torch only when it is needed: `python -m bench --help` must answer at once

    return load(record_folder)


def load_records(folder: Path | str) -> pd.DataFrame:
    """The runs of a store (`--out`), or committed ones (`reports/records`), as one frame: a row per run.

    Columns are the fields of a record with dots for nested ones: `method`, `seed`, `status`, `dataset`, `network.name`,
    `platform.name`, `platform.source`, `protocol.name`, `budget.fraction` (of the dense reading), `budget.amount`,
    `measures.estimate` and `measures.reading` (J or s per image, see `platform.unit`), `measures.accuracy_before` and
    `measures.accuracy_after` (0..1, before and after fine-tuning) and so on. What a run lacks is missing: the budget of
    the dense control, the measures of a miss. `page` names the report that a run belongs to, and only runs of one page
    may be compared; `file` is the record's file. Raises shared.errors.BadInput when there is no record below `folder`
    and when one is damaged.
    """
    from bench.report import collect, frame  # pandas only when it is needed

    records = collect(Path(folder))
    runs = frame(record for record, _ in records)
    return runs.assign(file=[records[place][1] for place in runs.index]).drop(columns="record").reset_index(drop=True)


def rank(frame: pd.DataFrame) -> pd.DataFrame:
    """The methods of every page in `frame`, see `load_records`, by mean accuracy at equal measured joules.

    A row per page and method; bench.ranking.rank describes the columns `page`, `method`, `rank`, `n`, `misses`, `mean`,
    `low`, `high`, `difference`, `p`, `reason` and others. Methods that can't be told apart share a rank. Where a page
    can't be ranked, `rank` is missing and `reason` says why.
    """
    from bench.ranking import rank as rank_methods  # pandas and scipy only when they are needed

    return rank_methods(frame)
