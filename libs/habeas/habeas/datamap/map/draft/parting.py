"""What becomes of rows whose parent row goes: a proposal where the draft has to say it."""

from collections.abc import Sequence

from habeas.datamap.catalogue.schema import ForeignKey, LiveTable
from habeas.datamap.map.dataset import REVIEW
from habeas.datamap.map.draft.links import Linking
from habeas.datamap.map.draft.ways import Reading, Way, is_nullable, is_part_of


class Parting:
    """Words for the references of each table."""

    def __init__(self, reading: Reading, linking: Linking) -> None:
        self.reading = reading
        self.linking = linking

    def stated(self, table: str) -> list[ForeignKey]:
        """Foreign keys of a table that a draft states: those into tables that lead to a person."""
        return [key for key in self.reading.keys[table] if key.to_table in self.reading.level]

    def word(self, table: LiveTable, key: ForeignKey) -> str:
        """What becomes of rows whose parent row goes, empty where nothing has to be said.

        Rows hang on the parent by their own way: they are doomed with it, or go along with it. Others let go, if the column may be
        NULL; those named as a part of the parent, or beside it a part of the same table, go with it.
        """
        way = self.reading.way(table.name)
        is_way = way is not None and way.key == key
        if key.to_table == table.name and not self.reading.is_everybodys(table.name):
            return "detach" if is_nullable(table, key.columns) else REVIEW
        if self._needs_none(key, is_way=is_way):
            return ""
        if is_way:
            is_let_go = key.on_delete in _LETTING_GO
            return "delete" if is_let_go or self._goes_along(self.reading.live.tables[key.to_table]) else ""
        if way is not None and way.key is not None and set(key.columns) <= set(way.key.columns):
            return "delete"
        return "detach" if is_nullable(table, key.columns) else self._of_bound(table, key, way)

    def _needs_none(self, key: ForeignKey, *, is_way: bool) -> bool:
        """Whether the database says it, the parent's rows stay, or the column names a person, which `anonymise` speaks of."""
        if key.on_delete in _LETTING_GO and not is_way:
            return True
        if key.to_table == self.reading.root and not set(key.columns).isdisjoint(self.reading.people[key.table]):
            return True
        return self.reading.is_everybodys(key.to_table)

    def _of_bound(self, table: LiveTable, key: ForeignKey, way: Way | None) -> str:
        """The word for rows that can't let go."""
        if self.reading.is_staying(key.to_table) or self.reading.is_everybodys(table.name):
            return ""
        parent = self.reading.live.tables[key.to_table]
        if self._is_shared(parent.name):
            return REVIEW
        return "delete" if is_part_of(table, parent) or self._is_beside(way, parent.name) else REVIEW

    def carriers(self, table: LiveTable, key: ForeignKey, word: str) -> Sequence[str]:
        """Columns of a foreign key on which its word is written: those that let go, or the one that tells it from others."""
        if word != "detach":
            return (self.reading.telling(key),)
        free = [column for column in key.columns if is_nullable(table, (column,))]
        others = {column for each in self.stated(table.name) if each != key for column in each.columns}
        return [column for column in free if column not in others] or free

    def _goes_along(self, table: LiveTable) -> bool:
        """Whether rows of a table may go with rows of others, so that what hangs on them has to go with them too."""
        return any(self.word(table, key) in {"delete", REVIEW} for key in self.stated(table.name))

    def _is_beside(self, way: Way | None, parent: str) -> bool:
        """Whether two tables are parts of one and the same, as the lines and the payments of an order are."""
        other = self.reading.way(parent)
        if way is None or other is None or way.key is None or other.key is None:
            return False
        return way.key.to_table == other.key.to_table

    def _is_shared(self, table: str) -> bool:
        """Whether rows of a table are several people's, by rows of others that refer to them."""
        return any("through" in each or "from" in each for each in self.linking.of(table).values())


_LETTING_GO = frozenset({"set null", "set default"})
