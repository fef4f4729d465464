"""`habeas keys rotate`: all that is wrapped moves to the new key, wherever an earlier run was cut off; the old one wraps nothing more."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from habeas.cli import rotation
from habeas.cli.main import habeas
from habeas.sealing import FileKek, KekMismatch, KeyKind, KeyStore, SubjectKey
from habeas.sealing.kek import RingTokens, kek_id_of, new_key, new_key_ring
from habeas_embedded.provision import Access
from notification_mailer.gateways import CampaignKeys
from notification_mailer.lifecycle.campaigns import WrappedKey
from tests.integration.cli.conftest import Owner

NOW: Final = datetime(2026, 11, 24, 9, tzinfo=UTC)
SUBJECTS: Final = [UUID(int=0x0192F0C0 << 96 | 0x7 << 76 | number) for number in range(25)]
CAMPAIGNS: Final = [UUID(int=0x0192F0C1 << 96 | 0x7 << 76 | number) for number in range(3)]
SQL_ADD_CAMPAIGN: Final = (
    "INSERT INTO notification_mailer.campaigns (campaign_id, change_id, state, version, summary, url, content_digest, effective_on,"
    " earliest_effective_on, scheduled_at, kek_id, wrapped_key) VALUES ($1, $2, 'mailing', '1', '{}', 'https://example.org',"
    " sha256(''), '2027-01-15', '2027-01-15', $3, $4, $5)"
)
SQL_KEK_IDS: Final = (
    "SELECT kek_id FROM sealing.subject_keys"
    " UNION SELECT kek_id FROM notification_mailer.campaigns WHERE wrapped_key IS NOT NULL"
)


@dataclass(frozen=True)
class Rotating:
    """A fleet's keys, and the command on them."""

    file: Path
    access: Access
    owner: Owner
    service: FileKek

    async def rotate(self, *arguments: str) -> Result:
        """Run the command as the owner of the tables."""
        env = {"HABEAS_ADMIN_DATABASE_DSN": self.access.owner_dsn, "HABEAS_KEK_FILE": str(self.file)}
        return await asyncio.to_thread(CliRunner().invoke, habeas, ["keys", "rotate", *arguments], env=env)

    @property
    def ring(self) -> RingTokens:
        """The ring as it is in the file."""
        return RingTokens.parse(self.file.read_text())

    async def wraps(self) -> set[str]:
        """Names of the KEKs that wrap anything."""
        return {row["kek_id"] for row in await self.owner.fetch(SQL_KEK_IDS)}

    async def references(self, kek: FileKek) -> Mapping[UUID, bytes]:
        """What tells every key from every other, opened by a ring."""
        keys = KeyStore(kek, lambda: NOW, cache_keys_max=0)
        found = {**await keys.require(self.owner, SUBJECTS, KeyKind.DATA)}
        rows = await self.owner.fetch("SELECT campaign_id, kek_id, wrapped_key FROM notification_mailer.campaigns")
        for campaign_id, kek_id, wrapped in rows:
            found[campaign_id] = CampaignKeys(kek).open(UUID(bytes=campaign_id.bytes), WrappedKey(kek_id, wrapped))
        return {subject_id: key.reference(b"") for subject_id, key in found.items()}


@pytest_asyncio.fixture
async def rotating(owner: Owner, database: Access, tmp_path: Path) -> Rotating:
    """Keys of persons and campaigns, and a service that has opened the ring and goes on with it."""
    file = tmp_path / "fleet.kek"
    service = FileKek.create(file)
    await KeyStore(service, lambda: NOW).create(owner, SUBJECTS, NOW)
    for number, campaign_id in enumerate(CAMPAIGNS):
        key = CampaignKeys(service).make(campaign_id)
        await owner.execute(SQL_ADD_CAMPAIGN, campaign_id, f"change-{number}", NOW, key.kek_id, key.wrapped)
    return Rotating(file, database, owner, service)


async def test_everything_moves_and_the_old_key_leaves(rotating: Rotating) -> None:
    """Keys of persons and of campaigns open under the new key alone, a service that runs follows, and it is on record."""
    old, before = rotating.ring, await rotating.references(rotating.service)
    done = await rotating.rotate()
    assert done.exit_code == 0, done.output
    assert "53 keys" in done.output  # two of each of 25 persons, and three campaigns
    new = rotating.ring
    assert (len(new.wrap), new.next, new.derive) == (1, None, old.derive)
    assert new.wrap != old.wrap
    assert await rotating.wraps() == {kek_id_of(new.wrap[0])}
    assert await rotating.references(FileKek(rotating.file)) == await rotating.references(rotating.service) == before
    made = rotating.service.wrap(bytes(32), b"")
    assert made.kek_id == kek_id_of(new.wrap[0])
    retired = rotating.file.with_name("fleet.kek.retired")
    assert (retired.read_text(), retired.stat().st_mode & 0o777) == (f"wrap={old.wrap[0]}\n", 0o600)
    facts = await rotating.owner.fetch("SELECT tail FROM erasure_executor.audit_outbox")
    assert [row["tail"].partition(" ")[2] for row in facts] == [
        "action=keys.rotated request=- subject=- outcome=- count=53 commitments=-"
    ]
    assert not any(key in done.output for key in (*old.wrap, *new.wrap, new.derive))


async def test_whoever_has_an_old_ring_is_refused(rotating: Rotating, tmp_path: Path) -> None:
    """After the rotation a copy of the old ring wraps nothing more, for persons or campaigns: it would open for nobody."""
    copy = tmp_path / "copy.kek"
    copy.write_text(rotating.file.read_text())
    copy.chmod(0o600)
    stale = FileKek(copy)
    assert (await rotating.rotate()).exit_code == 0
    with pytest.raises(asyncpg.CheckViolationError, match="retired"):
        await KeyStore(stale, lambda: NOW).create(rotating.owner, [UUID(int=1)], NOW)
    key = CampaignKeys(stale).make(UUID(int=1))
    with pytest.raises(asyncpg.CheckViolationError, match="retired"):
        await rotating.owner.execute(SQL_ADD_CAMPAIGN, UUID(int=1), "late", NOW, key.kek_id, key.wrapped)
    with pytest.raises(KekMismatch):
        await KeyStore(stale, lambda: NOW).require(rotating.owner, SUBJECTS, KeyKind.DATA)


async def test_a_run_that_was_cut_off_anywhere_is_taken_up(rotating: Rotating) -> None:
    """Before and after every step that outlives the process: the next run ends it, no key is lost, and no run makes a second new key."""
    before = await rotating.references(rotating.service)
    for number in itertools.count():
        with cut_off_at(number) as is_over:
            await rotating.rotate()
        assert await rotating.references(FileKek(rotating.file)) == before
        if is_over():
            break
        cut = rotating.ring
        begun = cut.wrap[0] if len(cut.wrap) > 1 else cut.next
        done = await rotating.rotate()
        assert done.exit_code == 0, done.output
        assert await rotating.wraps() == {kek_id_of(rotating.ring.wrap[0])}
        assert await rotating.references(FileKek(rotating.file)) == before
        assert begun in (None, rotating.ring.wrap[0])
        assert (len(rotating.ring.wrap), rotating.ring.next) == (1, None)
    assert number == 2 * 7  # before and after each step


class _Cut(Exception):
    """The process ends here."""


def cut_off_at(number: int) -> AbstractContextManager[Callable[[], bool]]:
    """End the command at the n-th of the places before and after each step; the result answers whether it ended before them all."""
    places = itertools.count()
    reached = 0

    def at_a_place() -> None:
        nonlocal reached
        reached = next(places)
        if reached == number:
            raise _Cut

    def sync(step: Callable[..., Any]) -> Callable[..., Any]:
        def cut(*arguments: Any) -> object:
            at_a_place()
            result: object = step(*arguments)
            at_a_place()
            return result

        return cut

    def awaited(step: Callable[..., Any]) -> Callable[..., Any]:
        async def cut(*arguments: Any) -> object:
            at_a_place()
            result: object = await step(*arguments)
            at_a_place()
            return result

        return cut

    @contextmanager
    def patched() -> Iterator[Callable[[], bool]]:
        with ExitStack() as stack:
            for name in ("_write", "_keep"):
                stack.enter_context(patch.object(rotation, name, sync(getattr(rotation, name))))
            for name in ("_rewrap_all", "_retire"):
                stack.enter_context(patch.object(rotation, name, awaited(getattr(rotation, name))))
            yield lambda: reached < number

    return patched()


async def test_steps_are_taken_one_by_one_where_services_have_copies(rotating: Rotating, tmp_path: Path) -> None:
    """After each step a copy that is one step behind still opens everything; after the last it is handed out once more."""
    copy = tmp_path / "copy.kek"
    for stage in ("announced", "changing", "at_rest"):
        copy.write_text(rotating.file.read_text())
        copy.chmod(0o600)
        behind = FileKek(copy)
        done = await rotating.rotate("--step", "--json")
        assert done.exit_code == 0, done.output
        assert f'"stage": "{stage}"' in done.stdout
        assert behind.unwrap(*FileKek(rotating.file).wrap(bytes(32), b""), b"") == bytes(32) or stage == "announced"
        assert len(await rotating.references(behind)) == len(SUBJECTS) + len(CAMPAIGNS)
    assert await rotating.wraps() == {kek_id_of(rotating.ring.wrap[0])}


async def test_keys_of_an_unknown_kek_stop_it_before_anything_changes(rotating: Rotating) -> None:
    """What no key of the ring unwraps could never be moved: which KEK is missing is said, and the old key goes on wrapping."""
    stranger = FileKek.create(rotating.file.with_name("other.kek"))
    key = SubjectKey.generate(UUID(int=5), KeyKind.DATA)
    wrapped = stranger.wrap(key.secret_for_wrapping(), key.context)
    await rotating.owner.execute(
        "INSERT INTO sealing.subject_keys VALUES ($1, 'data', $2, $3, now())", UUID(int=5), *wrapped
    )
    old = rotating.ring.wrap
    done = await rotating.rotate()
    assert (done.exit_code, wrapped.kek_id in done.output) == (1, True)
    assert rotating.ring.wrap == old


async def test_an_altered_key_keeps_the_old_one(rotating: Rotating) -> None:
    """All others move, the old key stays in the ring, and how many were altered is said."""
    await rotating.owner.execute(
        "UPDATE sealing.subject_keys SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)"
        " WHERE subject_id = $1 AND kind = 'case'",
        SUBJECTS[0],
    )
    old = rotating.ring.wrap[0]
    done = await rotating.rotate()
    assert (done.exit_code, "1 wrapped keys do not unwrap" in done.output) == (1, True)
    assert rotating.ring.wrap[1:] == (old,)
    assert (
        await rotating.owner.fetchval("SELECT count(*) FROM sealing.subject_keys WHERE kek_id = $1", kek_id_of(old))
        == 1
    )


async def test_only_one_rotates_at_a_time(rotating: Rotating) -> None:
    """A second one is told and changes nothing."""
    await rotating.owner.execute("SELECT pg_advisory_lock(hashtext('habeas keys rotate'))")
    before = rotating.file.read_text()
    done = await rotating.rotate()
    assert (done.exit_code, "somebody else" in done.output) == (1, True)
    assert rotating.file.read_text() == before


async def test_a_backup_of_before_is_moved_once_its_key_is_brought(rotating: Rotating) -> None:
    """A restored table names the retired key: the ring with that key added behind opens it, and the next run moves it."""
    old_rows = await rotating.owner.fetch("SELECT * FROM sealing.subject_keys")
    before = await rotating.references(rotating.service)
    assert (await rotating.rotate()).exit_code == 0
    async with rotating.owner.transaction():
        await rotating.owner.execute("TRUNCATE sealing.subject_keys, sealing.retired_keks")
        await rotating.owner.executemany(
            "INSERT INTO sealing.subject_keys VALUES ($1, $2, $3, $4, $5)", [*map(tuple, old_rows)]
        )
    retired = rotating.file.with_name("fleet.kek.retired").read_text()
    rotating.file.write_text(rotating.file.read_text() + retired)
    done = await rotating.rotate()
    assert done.exit_code == 0, done.output
    assert await rotating.references(FileKek(rotating.file)) == before
    assert await rotating.wraps() == {kek_id_of(rotating.ring.wrap[0])}


async def test_no_table_of_wrapped_keys_is_left_out(owner: Owner) -> None:
    """Every table with a `kek_id` is one that the rotation moves, and refuses keys of a retired KEK, new ones and changed ones."""
    tables = await owner.fetch(
        "SELECT c.oid::regclass::text AS name, ARRAY(SELECT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid = c.oid"
        " AND NOT t.tgisinternal ORDER BY 1) AS triggers FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " WHERE c.relkind IN ('r', 'p') AND a.attname = 'kek_id' AND c.oid <> 'sealing.retired_keks'::regclass ORDER BY 1"
    )
    assert {row["name"] for row in tables} == {"sealing.subject_keys", rotation._campaign_keys().table}
    for row in tables:
        assert row["triggers"] == ["inserted_by_retired_kek", "updated_by_retired_kek"]


@pytest.mark.parametrize(
    "spoiled",
    ["", "wrap=nonsense", f"wrap={new_key()}", new_key_ring() * 2],
    ids=["empty", "nonsense", "half", "twice"],
)
async def test_what_is_no_ring_is_wrong_use(rotating: Rotating, spoiled: str) -> None:
    """A file that holds no key ring is told so, unquoted, and stays."""
    rotating.file.write_text(spoiled)
    done = await rotating.rotate()
    assert done.exit_code == 2
    assert rotating.file.read_text() == spoiled
