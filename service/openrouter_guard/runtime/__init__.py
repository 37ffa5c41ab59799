"""What every process that runs for long needs, the health service and the operator alike.

cache       this process' copy of the shared state, pushed and polled
background  the loops, and whether they still come round
version     which one it is
"""

from .background import Background, cancelled
from .cache import Cache, View
from .version import package_version

__all__ = ["Background", "Cache", "View", "cancelled", "package_version"]
