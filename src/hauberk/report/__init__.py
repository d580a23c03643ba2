"""One self-contained HTML page about runs, and the same numbers as plain values."""

from hauberk.report.page import summary, write_report

__all__ = ["summary", "write_report"]
