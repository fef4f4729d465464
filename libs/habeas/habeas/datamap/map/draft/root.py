"""In which table a person begins: the one that most hangs on among those named like people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from habeas.datamap.catalogue.schema import LiveSchema, LiveTable
from habeas.datamap.map.draft.names import PEOPLE, words_of


@dataclass(frozen=True)
class Root:
    """The root, empty when there is none; `identity` is its key. `rivals` would do as well; `why` is a sentence or two for the reader."""

    name: str
    identity: str = ""
    rivals: tuple[str, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def is_sure(self) -> bool:
        """Whether nobody has to decide which it is."""
        return bool(self.name) and not self.rivals


def choose_root(live: LiveSchema, said: str | None = None) -> Root:
    """Return the root that somebody said, or else guess it."""
    if said is not None:
        return Root(said, _identity(live.tables[said]))
    named = _named_like_people(live)
    hanging = _hanging(live, named)
    if not named:
        return Root(
            "", why=("No table is named like people and has a key of one column: draft again with --root TABLE.",)
        )
    best = max(named, key=lambda name: (hanging[name], -named.index(name)))
    below = _below(live, best)
    rivals = tuple(name for name in named if name != best and name not in below and 2 * hanging[name] >= hanging[best])
    others = ", ".join(f"{name} {hanging[name]}" for name in named if name != best and hanging[name])
    if rivals:
        return Root(
            best,
            _identity(live.tables[best]),
            rivals,
            (
                f"Joins lead to {best}; for {' or '.join(rivals)} draft again with --root TABLE. Then write the root.",
                f"References of others to each: {best} {hanging[best]}{others and f', {others}'}.",
            ),
        )
    told = f" (others named like people: {others})" if others else ""
    return Root(
        best,
        _identity(live.tables[best]),
        (),
        (f"The root is {best}: references of others to it {hanging[best]}{told}.",),
    )


def _named_like_people(live: LiveSchema) -> list[str]:
    """Tables whose last word is one for people and that have a key of one column; the likeliest word first, the shortest name first."""
    found = [
        (PEOPLE.index(word), len(words_of(table.relation)), name)
        for name, table in live.tables.items()
        if table.kind in {"r", "p"} and _identity(table) and (word := _word_for_people(table.relation))
    ]
    return [name for *_, name in sorted(found)]


def _word_for_people(relation: str) -> str:
    last = "".join(words_of(relation)[-1:])
    return next((word for word in (last, last.removesuffix("s")) if word in PEOPLE), "")


def _hanging(live: LiveSchema, named: Sequence[str]) -> Counter[str]:
    """Foreign keys that lead to each table, and columns of others named after it that have none.

    A column named by the word for people alone counts for the first table that has it.
    """
    found = Counter(key.to_table for key in live.foreign_keys if key.table in live.tables and key.table != key.to_table)
    bound = {(key.table, column) for key in live.foreign_keys for column in key.columns}
    telling: dict[str, str] = {}
    for name in named:
        relation = live.tables[name].relation
        telling.setdefault(f"{_word_for_people(relation)}_id", name)
        telling.setdefault(f"{relation.removesuffix('s')}_id", name)
    for name, table in live.tables.items():
        free = [column for column in table.columns if (name, column) not in bound]
        found.update(telling[column] for column in free if telling.get(column, name) != name)
    return found


def _below(live: LiveSchema, root: str) -> set[str]:
    """Tables from which foreign keys lead to the root."""
    found = {root}
    while more := {key.table for key in live.foreign_keys if key.to_table in found} - found:
        found |= more
    return found


def _identity(table: LiveTable) -> str:
    """Return the column that tells one row from every other: the primary key, or another key of one column."""
    keys: Sequence[tuple[str, ...]] = [key for key in (table.key, *table.keys) if len(key) == 1]
    if keys:
        return keys[0][0]
    return "id" if "id" in table.columns and table.key else ""
