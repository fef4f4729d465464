"""The draft as text: a valid Fides dataset for each schema, the notes of Habeas beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from typing_extensions import override

from habeas.datamap.catalogue.schema import LiveSchema, LiveTable
from habeas.datamap.map.dataset import REVIEW
from habeas.datamap.map.draft.links import Linking
from habeas.datamap.map.draft.notes import Noting
from habeas.datamap.map.draft.root import choose_root
from habeas.datamap.map.draft.ways import Reading
from habeas.datamap.policy.model import Policy


@dataclass(frozen=True)
class Draft:
    """The YAML text, and how many places a person still has to decide."""

    text: str
    reviews: int


def draft_dataset(
    live: LiveSchema,
    *,
    store: str,
    connection: str,
    schema: str | Sequence[str],
    policy: Policy | None = None,
    root: str | None = None,
) -> Draft:
    """Write a dataset for each of the schemas of a live database; ``root`` is the table of people, guessed without it.

    The first schema is the one as seen from which ``live`` was read. Deterministic; the text is a valid Fides dataset.
    """
    schemas = (schema,) if isinstance(schema, str) else tuple(dict.fromkeys(schema))
    text = "\n".join(_Writing(live, store, schemas, policy, root).lines(connection)) + "\n"
    return Draft(text, len(re.findall(rf"\b{REVIEW}\b", re.sub(r"(?m)(^| )#.*$", "", text))))


class _Writing:
    """One pass over the live schemas."""

    def __init__(
        self, live: LiveSchema, store: str, schemas: Sequence[str], policy: Policy | None, root: str | None
    ) -> None:
        tables = {name: table for name, table in live.tables.items() if (table.schema or schemas[0]) in schemas}
        self.live = replace(live, tables=tables)
        self.schemas = schemas
        self.store = store
        self.root = choose_root(self.live, root)
        self.main = self._schema_of(tables[self.root.name]) if self.root.name else schemas[0]
        reading = Reading(self.live, self.root)
        linking = Linking(reading, self._called)
        self.reading = reading
        datasets = {name: self._dataset(self._schema_of(table)) for name, table in tables.items()}
        self.noting = Noting(reading, linking, policy, datasets)

    def lines(self, connection: str) -> Iterator[str]:
        yield f"# Drafted from a live schema. Decide every {REVIEW}, then run `habeas datamap check`;"
        yield "# what the keys mean stands in docs/data-map.md."
        for line in self.root.why:
            yield f"# {line}"
        if not self.root.name:
            yield "# No table of people was found: write its name as the root, or `root: none` if another store has it."
        yield "dataset:"
        for schema in self.schemas:
            yield f"  - fides_key: {_flow(self._dataset(schema))}"
            notes = {"store": self.store, "connection": connection, "schema": schema}
            if schema == self.main:
                notes["root"] = (
                    self.root.name and self.live.tables[self.root.name].relation if self.root.is_sure else REVIEW
                )
            yield f"    habeas: {_flow(notes)}"
            yield "    collections:"
            for table in self.live.tables.values():
                if self._schema_of(table) == schema:
                    yield from self._collection(table)

    def _collection(self, table: LiveTable) -> Iterator[str]:
        yield f"      - name: {_flow(table.relation)}"
        if table.name not in self.reading.reached:
            notes, hint = self.noting.nobodys(table)
            yield f"        habeas: {_flow(notes)}{_comment(hint)}"
            yield f"        fields: []{_comment(_flow([self.noting.plain_field(table, each) for each in table.columns.values()]))}"
            return
        category = self.noting.category(table)
        said, hint = (
            self.noting.everybodys(table)
            if self.reading.is_everybodys(table.name)
            else self.noting.collection(table, category)
        )
        yield f"        habeas: {_flow(said)}{_comment(hint)}"
        yield "        fields:"
        for column in table.columns.values():
            yield f"          - {_flow(self.noting.field(table, column, category))}"

    def _schema_of(self, table: LiveTable) -> str:
        return table.schema or self.schemas[0]

    def _dataset(self, schema: str) -> str:
        """Return the key of a schema's dataset: the store's name for that of the root."""
        if schema == self.main:
            return self.store
        return schema if schema != self.store else f"{self.store}_{schema}"

    def _called(self, table: str, beside: str) -> str:
        """Return the name of a table as the notes on another must spell it."""
        found = self.live.tables[table]
        schema = self._schema_of(found)
        is_near = schema in {self.main, self._schema_of(self.live.tables[beside])}
        return found.relation if is_near else f"{schema}.{found.relation}"


def _comment(text: str) -> str:
    return f"  # {text}" if text else ""


def _flow(value: Mapping[str, Any] | Sequence[Any] | str) -> str:
    """One line of YAML; words that another reader could take for something else are quoted by the library."""
    text: str = _Plain.dumped(value)
    return text.removesuffix("\n...\n").removesuffix("\n")


class _Plain(yaml.SafeDumper):
    """Says what is the same twice instead of naming it once."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    @classmethod
    def dumped(cls, value: object) -> str:
        text: str = yaml.dump(
            value, Dumper=cls, default_flow_style=True, sort_keys=False, width=10_000_000, allow_unicode=True
        )
        return text
