"""The status page at ``/``: rendered here, and updated in the browser by one small script.

view_model  the content of the page, as pure functions
load        reads that content
render      renders it as HTML, with the files that the page loads
templates, static   HTML and styles. static/uplot has uPlot (MIT), which draws the plots, and static/swagger has
                    Swagger UI (Apache-2.0), which shows the API under /docs
"""

from .load import beside, load_page
from .render import FILES, document_file, render, render_docs, render_error

__all__ = ["FILES", "beside", "document_file", "load_page", "render", "render_docs", "render_error"]
