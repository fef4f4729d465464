"""Records that no service told, on the audit topic of a running fleet: nobody stops for them, none enters the log, the operator is told."""

import os
from typing import Final

from aiokafka import AIOKafkaProducer

from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.contracts.audit import Action, AuditFact, Producer, encode_entry, encode_fact
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.topics import AUDIT_ENTRIES
from habeas.contracts.vocabulary import Right
from tests.support.heard import FORGER
from tests.support.program import run_habeas
from tests.support.stage import Stage, raised

MAILER: Final = "notification-mailer"


async def forge(stage: Stage, *lines: bytes) -> None:
    """Write to the audit topic as anybody can who may write there."""
    clock = SystemClock()
    producer = AIOKafkaProducer(bootstrap_servers=stage.servers.kafka_bootstrap)
    await producer.start()
    try:
        for line in lines:
            headers = encode_headers(Envelope(uuid7(clock), "audit.entry", FORGER, clock.now(), MAILER))
            await producer.send_and_wait(
                AUDIT_ENTRIES.name, line, key=f"{MAILER}/999999".encode(), headers=list(headers)
            )
    finally:
        await producer.stop()


async def test_forged_entries_end_no_service() -> None:
    """After a forged record of each kind notification-mailer starts again and works; status names the producer, recover the records."""
    async with raised(f"tests-forged-{os.getpid()}") as stage:
        request_id = await stage.ask(Right.ACCESS, stage.take_one())
        await stage.completed(request_id)
        await stage.idle()
        head = await stage.habeas.fetchrow("SELECT epoch, seq FROM notification_mailer.audit_head")
        assert head is not None
        clock = SystemClock()
        false = uuid7(clock)
        tail = encode_fact(AuditFact(Action.MAIL_SENT, false), clock.now())
        last = await stage.habeas.fetchval("SELECT hash FROM notification_mailer.audit_head")
        await forge(
            stage,
            f"habeas-audit/1 producer={MAILER} epoch=1 seq=999999 x".encode(),
            *(encode_entry(Producer(MAILER), 1, seq, "f" * 64, tail) for seq in (1, head["seq"] + 1, head["seq"] + 9)),
            encode_entry(Producer(MAILER), 2, 1, "0" * 64, tail),
            encode_entry(Producer(MAILER), 2, 1, last, tail),
        )

        async def is_halted() -> bool:
            sql = "SELECT state FROM audit_ledger.producers WHERE producer = $1"
            return bool(await stage.habeas.fetchval(sql, MAILER) == "halted")

        await stage.finds(is_halted, "the producer halted by audit-ledger")
        looked = await run_habeas(stage, "recover", "--yes")
        assert looked.code == 0, looked.text
        assert "6 records of the audit topic claim to be entries of notification-mailer" in looked.text
        status = await run_habeas(stage, "status", "--check")
        assert status.code == 1
        assert "halted" in status.text
        await stage.fleet.stop_service(MAILER)
        await stage.fleet.start_service(MAILER)
        await stage.completed(await stage.ask(Right.ACCESS, stage.take_one()))
        await stage.idle()

        async def has_gone_on() -> bool:
            told = "SELECT seq FROM notification_mailer.audit_head"
            taken = "SELECT seq FROM audit_ledger.producers WHERE producer = $1 AND state = 'following' AND epoch = 1"
            return bool(await stage.habeas.fetchval(told) == await stage.habeas.fetchval(taken, MAILER))

        await stage.finds(has_gone_on, "every entry of the producer in the log, by itself")
        forged = "SELECT count(*) FROM audit_ledger.leaves WHERE position($1 IN convert_from(line, 'UTF8')) > 0"
        assert await stage.habeas.fetchval(forged, false.hex) == 0
        over = await run_habeas(stage, "recover", "--yes", "--pass-over", MAILER)
        assert over.code == 0, over.text
        assert "uncertain" not in over.text
        said = "SELECT count(*) FROM notification_mailer.audit_lines WHERE convert_from(line, 'UTF8') LIKE '%outcome=forged%'"

        async def is_recorded() -> bool:
            return bool(await stage.habeas.fetchval(said) == 1)

        await stage.finds(is_recorded, "the decision in the log")
        assert (await run_habeas(stage, "recover", "--yes", "--pass-over", "nobody")).code == 2
