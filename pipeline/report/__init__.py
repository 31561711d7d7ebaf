"""The report: tables of a release -> a plain dict (`summarize`) -> charts -> one HTML file. See README.md here.

Importing this package does not import matplotlib, jinja2 or Pillow; they are imported when a page is rendered.
"""

from pipeline.report.html import render_html
from pipeline.report.summary import summarize

__all__ = ["render_html", "summarize"]
