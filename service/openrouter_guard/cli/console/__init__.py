"""How answers reach people and programs: tables, colour, JSON and YAML."""

from .output import Form, show
from .tables import Block, Facts, Table, Text

__all__ = ["Block", "Facts", "Form", "Table", "Text", "show"]
