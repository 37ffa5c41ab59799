"""``python -m openrouter_guard`` is ``openrouter-guard``."""

import sys

from .cli import main

sys.exit(main())
