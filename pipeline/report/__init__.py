"""The report: tables of a release -> a plain dict (summary) -> charts -> one HTML file; see README.md here.

Importing this package loads neither matplotlib nor jinja2 nor Pillow: they are loaded when a page is drawn.
"""

from pipeline.report.html import render_html
from pipeline.report.summary import summarize

__all__ = ["render_html", "summarize"]
