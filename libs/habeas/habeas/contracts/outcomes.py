"""Parts that several events share: what became of a table, an export, a category."""

from datetime import date

from pydantic import Field

from habeas.contracts.model import ConfigName, Model, Slug
from habeas.contracts.vocabulary import KeepGround, TableResult


class TableOutcome(Model):
    """What an erasure did to one person's rows of one table; ``until`` is set when rows were kept."""

    store: Slug
    table: ConfigName
    category: Slug
    result: TableResult
    rows: int = Field(ge=0)
    ground: KeepGround | None = None
    until: date | None = None


class ExportedTable(Model):
    """How many of one person's rows of one table an export holds."""

    store: Slug
    table: ConfigName
    category: Slug
    rows: int = Field(ge=0)


class CategoryOutcome(Model):
    """What the person is told about one category of data."""

    category: Slug
    result: TableResult
    rows: int = Field(ge=0)
    ground: KeepGround | None = None
    until: date | None = None
