"""The status page at ``/``: rendered here, kept current in the browser by one small script.

board    what it shows, as pure functions
gather   reads what it shows
render   from that to HTML, and the files that the page loads
templates, static   its form; uPlot (MIT), which draws the plots, is in static/uplot, and Swagger UI (Apache-2.0),
                    which shows the API under /docs, in static/swagger
"""

from .load import beside, load_page
from .render import FILES, document_file, render, render_docs, render_error

__all__ = ["FILES", "beside", "document_file", "load_page", "render", "render_docs", "render_error"]
