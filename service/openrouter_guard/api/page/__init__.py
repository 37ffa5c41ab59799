"""The status page at ``/``: rendered here, kept current in the browser by one small script.

board    what it shows, as pure functions
gather   reads what it shows
render   from that to HTML, and the files that the page loads
templates, static   its form; uPlot (MIT), which draws the plots, is in static/uplot
"""

from .gather import beside, gather
from .render import FILES, render

__all__ = ["FILES", "beside", "gather", "render"]
