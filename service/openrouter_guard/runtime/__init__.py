"""What every process that runs for long needs, the health service and the operator alike.

cache       this process' copy of the shared state, pushed and polled
edge        one log line when something goes wrong, and one when it is over
background  the loops, and whether they still come round
"""

from .background import Background, cancelled
from .cache import Cache, View
from .edge import Edge

__all__ = ["Background", "Cache", "Edge", "View", "cancelled"]
