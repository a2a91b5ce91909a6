"""Reports: pages and plots, made of records and of nothing else.

render(records, folder)                    pages and plots of some runs
summary_table(records)                     the main table for a terminal
publish(records_with_folders, reports)     the same, committed together with the records
regenerate(reports), check(reports)        from the committed records again
collect(path), committed(reports)          the records below a folder; the pages of committed ones
pages(records), formats.write(pages, ...)  records as pages; pages as CSV or LaTeX
"""

from bench.report import formats
from bench.report.collect import collect, pages
from bench.report.publish import RECORDS, check, committed, publish, regenerate
from bench.report.render import render, summary_table

__all__ = [
    "RECORDS",
    "check",
    "collect",
    "committed",
    "formats",
    "pages",
    "publish",
    "regenerate",
    "render",
    "summary_table",
]
