"""Parts that several events share: what became of a table, an export, a category."""

from datetime import date

from pydantic import Field

from habeas.contracts.model import ConfigName, Model, Slug
from habeas.contracts.vocabulary import KeepGround, TableResult


class TableOutcome(Model):
    """What an erasure did to one person's rows of one table, or to rows of others for their sake; ``until`` is set when rows were kept.

    A table has one for each result, and `nothing_held` alone where none of its rows were the person's.
    """

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
    """What the person is told about one category of data; rows of others are in none."""

    category: Slug
    result: TableResult
    rows: int = Field(ge=0)
    ground: KeepGround | None = None
    until: date | None = None
