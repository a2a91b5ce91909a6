"""Reports: pages and plots, made of records and of nothing else.

render(records, folder)                    pages and plots of some runs
summary_table(records)                     the main table for a terminal
publish(records_with_folders, reports)     the same, committed together with the records
regenerate(reports), check(reports)        from the committed records again
collect(path)                              the records below a folder
"""

from bench.report.collect import collect
from bench.report.publish import check, publish, regenerate
from bench.report.render import render, summary_table

__all__ = ["check", "collect", "publish", "regenerate", "render", "summary_table"]
