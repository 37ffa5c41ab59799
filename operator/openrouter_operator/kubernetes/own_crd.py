"""The CRD that came with this version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["own_crd"]

_NAME = "openrouterstatuses.yaml"
_PACKAGE = Path(__file__).parents[1]


def own_crd() -> Mapping[str, Any]:
    """Return the CRD: of the installed package, or of the checkout."""
    installed = _PACKAGE / "crds" / _NAME
    file = installed if installed.exists() else _PACKAGE.parents[1] / "crds" / _NAME
    found: Mapping[str, Any] = yaml.safe_load(file.read_text())
    return found
