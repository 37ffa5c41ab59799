"""The status page at ``/``: rendered here, kept current in the browser by one small script.

board    what it shows, as pure functions
gather   reads what it shows
routes   the page and what it loads
templates, static   its form; uPlot (MIT), which draws the plots, is in static/uplot
"""

from .routes import router

__all__ = ["router"]
