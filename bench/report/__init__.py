"""Reports: pages and plots, made of records and of nothing else.

frame(records)                             a row per run
checked(records)                           the same; refuses rows that can't share a page
render(records, folder)                    writes pages and plots of some runs
summary_table(records)                     the main table for a terminal
publish(records_with_files, reports)       the same together with the records, to be committed
regenerate(reports), check(reports)        makes committed pages anew, or compares them with their records
collect(path), committed(reports)          the records below a folder; the frame of committed ones
export.write(runs, ...)                    writes pages as CSV or LaTeX
"""

from bench.report import export
from bench.report.frame import checked, collect, frame
from bench.report.page import render, summary_table
from bench.report.publish import RECORDS, check, committed, publish, regenerate

__all__ = ["checked", "collect", "export", "frame", "render", "summary_table"]  # of any records
__all__ += ["RECORDS", "check", "committed", "publish", "regenerate"]  # of committed ones
