"""Reports: pages and plots, made of records and of nothing else.

frame(records)                             a row per run
checked(records)                           the same, refused where rows can't share a page
render(records, folder)                    pages and plots of some runs
summary_table(records)                     the main table for a terminal
publish(records_with_files, reports)       the same, committed together with the records
regenerate(reports), check(reports)        from the committed records again
collect(path), committed(reports)          the records below a folder; the frame of committed ones
export.write(runs, ...)                    pages as CSV or LaTeX
"""

from bench.report import export
from bench.report.frame import checked, collect, frame
from bench.report.page import render, summary_table
from bench.report.publish import RECORDS, check, committed, publish, regenerate

__all__ = [
    "RECORDS",
    "check",
    "checked",
    "collect",
    "committed",
    "export",
    "frame",
    "publish",
    "regenerate",
    "render",
    "summary_table",
]
