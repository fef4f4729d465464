"""A notice to the people of two stores: everybody once, whichever store is away in the midst of it."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import pytest_asyncio

from habeas.datamap.errors import StoreUnavailable
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.postgres import PostgresStore
from habeas_embedded.provision import Access
from habeas_embedded.servers import Servers
from notification_mailer import sweeps
from tests.integration.notification_mailer.conftest import Mailer, changed, start_mailer
from tests.integration.several_stores.conftest import PEOPLE, another_database
from tests.support.shop import DATAMAP, open_shop, write_map
from tests.support.two_stores import Platform

CLUB: Final = DATAMAP.replace("store: shop", "store: club").replace("SHOP_DSN", "CLUB_DSN")
MEMBERS: Final = ("acc_3", "acc_4", "acc_5", "acc_6")


@pytest_asyncio.fixture
async def mailer(
    database: Access, postgres_server: Servers, platform: Platform, tmp_path: Path, sink: Servers
) -> AsyncIterator[Mailer]:
    """The service over the shop, its support desk, and a club, which comes before both by name and shares one person with the shop."""
    sink.mailbox.behave()
    for mail in sink.mailbox.mails():
        mail.path.unlink()
    (tmp_path / "club").mkdir()
    path, policy = write_map(tmp_path / "club", CLUB)
    async with another_database(postgres_server) as dsn:
        owner = await asyncpg.connect(dsn)
        await open_shop(owner, MEMBERS)
        async with (
            PostgresStore(load_datamap(path, policy).store("club"), policy, dsn) as club,
            start_mailer(database, [*platform.stores, club], policy, sink, owner) as started,
        ):
            yield started
        await owner.close()


async def told(mailer: Mailer) -> Counter[str]:
    """Count the mails to each address."""
    found: Counter[str] = Counter()
    for row in await mailer.mails():
        for mail in mailer.delivered(row["mail_id"]):
            found.update(mail.recipients)
    return found


def everybody() -> dict[str, int]:
    """One mail to each."""
    return {f"{account}@example.org": 1 for account in {*PEOPLE, *MEMBERS}}


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 4, 5])
async def test_everybody_is_read_once_whatever_page_a_store_goes_away_at(
    mailer: Mailer, platform: Platform, pages: int
) -> None:
    """The reading waits for the store, and goes on where it was; the desk, which has no people, is never waited for."""
    await mailer.receive(changed())
    platform.take_away("support")
    for _ in range(pages):
        await mailer.gather()
    platform.take_away("shop")
    with pytest.raises(StoreUnavailable) as raised:
        await mailer.campaign()
    assert raised.value.store == "shop"
    assert await mailer.told("policy_change.notified") == []
    platform.bring_back("shop")
    await mailer.campaign()
    assert await told(mailer) == everybody()
    (end,) = await mailer.told("policy_change.notified")
    assert (end["sent"], end["refused"], end["uncertain"], end["suppressed"]) == (6, 0, 0, 0)


async def test_who_is_in_two_stores_is_written_to_where_an_address_is(mailer: Mailer, platform: Platform) -> None:
    """The shop's account has none any more, so the club's counts; who has none anywhere is not written to."""
    await platform.shop_owner.execute("UPDATE accounts SET email = '' WHERE id = 'acc_3'")
    await platform.shop_owner.execute("UPDATE accounts SET email = ' ' WHERE id = 'acc_1'")
    await mailer.receive(changed())
    await mailer.campaign()
    expected = everybody()
    del expected["acc_1@example.org"]
    assert await told(mailer) == expected
    assert {row["state"] for row in await mailer.mails()} == {"sent", "refused"}


async def test_notices_wait_for_the_store_that_knows_the_address(mailer: Mailer, platform: Platform) -> None:
    """Away when letters are written, it leaves those whom it knows waiting; nobody is taken for somebody without an address."""
    await mailer.receive(changed())
    while (await mailer.gather()).handled:
        pass
    platform.take_away("shop")
    with pytest.raises(StoreUnavailable):
        await sweeps.send_campaign_mails(mailer.db, mailer.room)
    assert {row["state"] for row in await mailer.mails()} == {"queued"}
    platform.bring_back("shop")
    await mailer.campaign()
    assert await told(mailer) == everybody()
