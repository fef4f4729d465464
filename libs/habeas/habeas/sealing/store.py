"""Wrapped keys of data subjects in table sealing.subject_keys, a whole batch per statement.

The database decides whether a key exists: every call asks it. Only the unwrapping is remembered, bounded in number and
age, so a key that was destroyed, or made in a transaction that was rolled back, is never served from memory.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from habeas.sealing.errors import KeyMissing
from habeas.sealing.kek import KekProvider, Wrapped
from habeas.sealing.keys import KeyKind, SubjectKey, SubjectKeys, context_of

# Who has any key is no new subject: what is missing was destroyed, and another key under the same name would open nothing of it.
CREATE_SUBJECT_KEYS: Final = """
    INSERT INTO sealing.subject_keys (subject_id, kind, kek_id, wrapped, created_at)
    SELECT n.subject_id, n.kind, n.kek_id, n.wrapped, $5::timestamptz
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS n (subject_id, kind, kek_id, wrapped)
     WHERE NOT EXISTS (SELECT FROM sealing.subject_keys AS k WHERE k.subject_id = n.subject_id)
    ON CONFLICT (subject_id, kind) DO NOTHING
"""

READ_SUBJECT_KEYS: Final = """
    SELECT subject_id, kind, kek_id, wrapped
      FROM sealing.subject_keys
     WHERE subject_id = ANY($1::uuid[]) AND kind = ANY($2::text[])
"""

DESTROY_SUBJECT_KEYS: Final = """
    DELETE FROM sealing.subject_keys
     WHERE subject_id = ANY($1::uuid[]) AND kind = $2::text
    RETURNING subject_id
"""

# In the order of the primary key, from a place on: a pass reads each row once, however many it has moved already. It waits for nobody.
LOCK_KEYS_OF_OTHER_KEKS: Final = """
    SELECT subject_id, kind, kek_id, wrapped
      FROM sealing.subject_keys
     WHERE (subject_id, kind) > ($2::uuid, $3::text) AND kek_id <> $1::text
     ORDER BY subject_id, kind
     LIMIT $4::int
       FOR UPDATE SKIP LOCKED
"""

REWRAP_SUBJECT_KEYS: Final = """
    UPDATE sealing.subject_keys AS k
       SET kek_id = n.kek_id, wrapped = n.wrapped
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS n (subject_id, kind, kek_id, wrapped)
     WHERE k.subject_id = n.subject_id AND k.kind = n.kind
"""

COUNT_SUBJECT_KEYS: Final = "SELECT kek_id, count(*) AS keys FROM sealing.subject_keys GROUP BY kek_id"

RETIRE_KEKS: Final = """
    INSERT INTO sealing.retired_keks (kek_id, retired_at) SELECT n.kek_id, now() FROM unnest($1::text[]) AS n (kek_id)
    ON CONFLICT (kek_id) DO NOTHING
"""

CACHE_KEYS_MAX: Final = 10_000
CACHE_AGE: Final = timedelta(minutes=5)


class Row(Protocol):
    """A row, readable by column name."""

    def __getitem__(self, column: str, /) -> Any:  # noqa: ANN401 - the statement knows the type, Python does not
        """Return a column's value."""
        ...


class Connection(Protocol):
    """What a key store needs of a database connection or transaction; asyncpg's signature."""

    async def fetch(self, query: str, *args: Any) -> Sequence[Any]:
        """Run one statement and return its rows, readable by column name."""
        ...

    async def execute(self, query: str, *args: Any) -> object:
        """Run one statement."""
        ...


class _Unwrapped(NamedTuple):
    kek_id: str
    wrapped: bytes
    key: SubjectKey
    until: datetime


class KeyStore:
    """Make, read and destroy subjects' keys inside the caller's transaction."""

    def __init__(
        self,
        kek: KekProvider,
        now: Callable[[], datetime],
        *,
        cache_keys_max: int = CACHE_KEYS_MAX,
        cache_age: timedelta = CACHE_AGE,
    ) -> None:
        """`now` is the clock that ages the cache; `cache_keys_max` 0 switches the cache off."""
        self._kek = kek
        self._now = now
        self._cache: OrderedDict[tuple[UUID, KeyKind], _Unwrapped] = OrderedDict()
        self._cache_keys_max = cache_keys_max
        self._cache_age = cache_age

    async def create(self, conn: Connection, subject_ids: Iterable[UUID], now: datetime) -> Mapping[UUID, SubjectKeys]:
        """Return both keys of every subject, making those of new subjects; idempotent, and the first of two makers wins.

        A subject one of whose keys was destroyed gets no other in its place: KeyMissing. Two statements. Under READ COMMITTED
        both makers see the winner's key; under a stricter isolation the loser gets KeyMissing.
        """
        wanted = sorted(
            set(subject_ids)
        )  # one order of locks everywhere: two makers of the same subjects never deadlock
        if not wanted:
            return {}
        pairs = [(subject_id, kind) for subject_id in wanted for kind in KeyKind]
        made = [self._wrap(SubjectKey.generate(subject_id, kind)) for subject_id, kind in pairs]
        ids, kinds = [subject_id for subject_id, _ in pairs], [kind.value for _, kind in pairs]
        await conn.execute(CREATE_SUBJECT_KEYS, ids, kinds, [w.kek_id for w in made], [w.wrapped for w in made], now)
        found = await self._fetch(conn, wanted, tuple(KeyKind))
        _refuse_missing(pairs, found)
        return {i: SubjectKeys(data=found[i, KeyKind.DATA], case=found[i, KeyKind.CASE]) for i in wanted}

    async def read(self, conn: Connection, subject_ids: Iterable[UUID], kind: KeyKind) -> Mapping[UUID, SubjectKey]:
        """Return the keys that exist; one that is absent was destroyed or never made, and the caller decides.

        One statement.
        """
        found = await self._fetch(conn, sorted(set(subject_ids)), (kind,))
        return {subject_id: key for (subject_id, _), key in found.items()}

    async def read_both(
        self, conn: Connection, subject_ids: Iterable[UUID]
    ) -> tuple[Mapping[UUID, SubjectKey], Mapping[UUID, SubjectKey]]:
        """Return the data keys and the case keys that exist, as `read` does. One statement for both."""
        found = await self._fetch(conn, sorted(set(subject_ids)), tuple(KeyKind))
        data, case = (
            {i: key for (i, each), key in found.items() if each is kind} for kind in (KeyKind.DATA, KeyKind.CASE)
        )
        return data, case

    async def require(self, conn: Connection, subject_ids: Iterable[UUID], kind: KeyKind) -> Mapping[UUID, SubjectKey]:
        """Return the key of every subject, or raise KeyMissing when as much as one is absent. One statement."""
        wanted = sorted(set(subject_ids))
        found = await self._fetch(conn, wanted, (kind,))
        _refuse_missing([(subject_id, kind) for subject_id in wanted], found)
        return {subject_id: found[subject_id, kind] for subject_id in wanted}

    async def destroy(self, conn: Connection, subject_ids: Iterable[UUID], kind: KeyKind) -> frozenset[UUID]:
        """Delete the keys and forget them; return the subjects that had one. Idempotent. One statement."""
        wanted = sorted(set(subject_ids))
        if not wanted:
            return frozenset()
        rows = await conn.fetch(DESTROY_SUBJECT_KEYS, wanted, kind.value)
        self.forget(wanted)
        return frozenset(row["subject_id"] for row in rows)

    def forget(self, subject_ids: Iterable[UUID]) -> None:
        """Drop the subjects' unwrapped keys from memory; services call it on `subject.erased`."""
        for subject_id in subject_ids:
            for kind in KeyKind:
                self._cache.pop((subject_id, kind), None)

    async def _fetch(
        self, conn: Connection, subject_ids: Sequence[UUID], kinds: Sequence[KeyKind]
    ) -> dict[tuple[UUID, KeyKind], SubjectKey]:
        if not subject_ids:
            return {}
        rows = await conn.fetch(READ_SUBJECT_KEYS, subject_ids, [kind.value for kind in kinds])
        now = self._now()
        keys = [self._remembered(row, now) for row in rows]
        return {(key.subject_id, key.kind): key for key in keys}

    def _remembered(self, row: Row, now: datetime) -> SubjectKey:
        place = (row["subject_id"], KeyKind(row["kind"]))
        known = self._cache.get(place)
        if known is not None and known.until > now and (known.kek_id, known.wrapped) == (row["kek_id"], row["wrapped"]):
            self._cache.move_to_end(place)
            return known.key
        key = self._unwrap(row)
        self._cache[place] = _Unwrapped(row["kek_id"], row["wrapped"], key, now + self._cache_age)
        self._cache.move_to_end(place)
        while len(self._cache) > self._cache_keys_max:
            self._cache.popitem(last=False)
        return key

    def _wrap(self, key: SubjectKey) -> Wrapped:
        return self._kek.wrap(key.secret_for_wrapping(), key.context)

    def _unwrap(self, row: Row) -> SubjectKey:
        # asyncpg returns its own subclass of UUID; ours is the plain one, so that it compares and hashes as elsewhere.
        subject_id, kind = UUID(bytes=row["subject_id"].bytes), KeyKind(row["kind"])
        return SubjectKey(
            subject_id, kind, self._kek.unwrap(row["kek_id"], row["wrapped"], context_of(subject_id, kind))
        )


def _refuse_missing(wanted: Sequence[tuple[UUID, KeyKind]], found: Mapping[tuple[UUID, KeyKind], SubjectKey]) -> None:
    missing = sum(pair not in found for pair in wanted)
    if missing:
        raise KeyMissing(f"{missing} of {len(wanted)} subject keys do not exist")
