"""What one invented person left behind: rows for every table of persons, parents before children."""

import datetime as dt
import ipaddress
import json
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from habeas_demo import texts
from habeas_demo.people import DAY, RETENTION, Person, make_uuid

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "accounts": (
        "id",
        "email",
        "name",
        "language",
        "country",
        "born_on",
        "clerk_user_id",
        "plan_id",
        "created_at",
        "updated_at",
        "closed_at",
    ),
    "sessions": ("id", "account_id", "token_hash", "ip", "user_agent", "device", "started_at", "last_seen_at"),
    "api_keys": ("id", "account_id", "label", "prefix", "hash", "created_at", "last_used_at"),
    "provider_keys": ("id", "account_id", "provider", "label", "sealed", "created_at"),
    "tasks": (
        "id",
        "account_id",
        "title",
        "intent",
        "source",
        "model_id",
        "state",
        "credits",
        "created_at",
        "finished_at",
    ),
    "task_steps": ("id", "task_id", "ordinal", "kind", "started_at", "finished_at"),
    "task_contents": ("id", "step_id", "direction", "body", "attachment", "created_at"),
    "execution_logs": (
        "id",
        "logged_at",
        "account_id",
        "task_id",
        "session_id",
        "model_id",
        "status",
        "latency_ms",
        "tokens_in",
        "tokens_out",
        "ip",
        "user_agent",
    ),
    "credit_ledger": ("id", "account_id", "kind", "credits", "booked_on", "created_at"),
    "invoices": (
        "id",
        "number",
        "account_id",
        "billing_name",
        "billing_address",
        "country",
        "net",
        "vat_rate",
        "gross",
        "currency",
        "payment_reference",
        "issued_on",
        "paid_at",
    ),
    "support_tickets": ("id", "account_id", "subject", "state", "opened_at", "closed_at"),
    "ticket_messages": ("id", "ticket_id", "author", "body", "sent_at"),
    "cookie_consents": (
        "id",
        "account_id",
        "purpose",
        "granted",
        "global_privacy_control",
        "banner_version",
        "decided_at",
    ),
    "quality_scores": ("id", "account_id", "metric", "score", "inputs", "computed_at"),
}
"""Tables of persons, parents first, and what the generator writes into each."""
Rows = dict[str, list[tuple[Any, ...]]]
_RUNNING_TASK = 2
_DEVICES = [
    json.dumps({"type": kind, "screen": size}) for kind, size in (("desktop", "2560x1440"), ("phone", "390x844"))
]
_MODEL_IDS = [model[0] for model in texts.MODELS]


@dataclass(frozen=True, slots=True)
class Size:
    """How much to invent: people, days of log, and per person how many lines of log and tasks (at least two)."""

    accounts: int = 1_000
    days: int = 120
    logs_each: int = 20
    tasks_each: int = 4


class History:
    """What one person left behind on the platform until `now`; `write` appends it to `rows`."""

    def __init__(self, person: Person, rng: random.Random, now: dt.datetime, size: Size, rows: Rows) -> None:
        self.person = person
        self.rng = rng
        self.now = now
        self.size = size
        self.rows = rows
        self.end = person.closed_at or now
        self.ip = ipaddress.ip_address(person.ip)
        self.words = {"name": person.name, "email": person.email, "ip": person.ip}

    def write(self) -> None:
        """Append the person's rows, table by table; to be called once."""
        person = self.person
        self._add(
            "accounts",
            person.account_id,
            person.email,
            person.name,
            person.language,
            person.country,
            person.born_on,
            person.clerk_user_id,
            self.rng.choice(texts.PLANS)[0],
            person.created_at,
            person.created_at,
            person.closed_at,
        )
        sessions = [self._session() for _ in range(1 + self.rng.randrange(2))]
        self._keys()
        tasks = [self._task(ordinal) for ordinal in range(self.size.tasks_each)]
        self._logs(sessions, tasks)
        self._books()
        self._support()
        self._choices()

    def _add(self, table: str, *values: object) -> None:
        self.rows[table].append(values)

    def _moment(self, ordinal: int) -> dt.datetime:
        """A moment of the log's days: a person's first is past its retention, the second isn't, the rest anywhere."""
        oldest, newest = self.now - (self.size.days - 1) * DAY, self.end - DAY / 24
        middle = min(max(self._cutoff(), oldest), newest)
        low, high = (oldest, newest) if ordinal > 1 else (oldest, middle) if ordinal == 0 else (middle, newest)
        return low + (high - low) * self.rng.uniform(0.001, 0.999)

    def _cutoff(self) -> dt.datetime:
        """Where retention cuts when the tick is for the start of this day, UTC."""
        return self.now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - RETENTION

    def _session(self) -> object:
        session_id = make_uuid(self.rng)
        started_at = self.end - self.rng.uniform(0.1, 100) * DAY
        self._add(
            "sessions",
            session_id,
            self.person.account_id,
            self.rng.randbytes(32),
            self.ip,
            self.person.user_agent,
            self.rng.choice(_DEVICES),
            started_at,
            started_at + DAY / 12,
        )
        return session_id

    def _keys(self) -> None:
        rng, person = self.rng, self.person
        for label in ("laptop", "build server")[: 1 + rng.randrange(2)]:
            key = rng.randbytes(32)
            self._add(
                "api_keys",
                make_uuid(rng),
                person.account_id,
                label,
                f"ak_{key[:4].hex()}",
                rng.randbytes(32),
                person.created_at,
                self.end,
            )
        self._add(
            "provider_keys",
            make_uuid(rng),
            person.account_id,
            rng.choice(("openai", "anthropic", "mistral")),
            "my own key",
            rng.randbytes(79),
            person.created_at,
        )

    def _task(self, ordinal: int) -> object:
        rng, person = self.rng, self.person
        task_id, created_at = make_uuid(rng), self._moment(ordinal)
        running = ordinal == _RUNNING_TASK and person.busy
        kind = rng.randrange(len(texts.INTENTS))
        finished_at = created_at
        for step in range(2):
            step_id, started_at = make_uuid(rng), created_at + step * dt.timedelta(seconds=20)
            finished_at = started_at + dt.timedelta(seconds=1 + rng.random() * 15)
            self._add("task_steps", step_id, task_id, step, ("plan", "answer")[step], started_at, finished_at)
            asked = 0 if ordinal == 0 else kind
            attachment = f"name;mail\n{person.name};{person.email}\n".encode() if ordinal == 1 and step == 0 else None
            self._add(
                "task_contents",
                make_uuid(rng),
                step_id,
                "input",
                texts.PROMPTS[asked].format(**self.words),
                attachment,
                started_at,
            )
            self._add(
                "task_contents",
                make_uuid(rng),
                step_id,
                "output",
                texts.ANSWERS[asked].format(**self.words),
                None,
                finished_at,
            )
        self._add(
            "tasks",
            task_id,
            person.account_id,
            rng.choice(texts.TITLES),
            texts.INTENTS[kind],
            rng.choice(texts.SOURCES),
            rng.choice(_MODEL_IDS),
            "running" if running else "done",
            Decimal(rng.randrange(1, 90_000)) / 10_000,
            created_at,
            None if running else finished_at + dt.timedelta(seconds=1),
        )
        return task_id

    def _logs(self, sessions: list[object], tasks: list[object]) -> None:
        moments = [self._moment(ordinal) for ordinal in range(self.size.logs_each)]
        if self.person.index == 0:  # on both sides of the cut, as near as the type can say
            moments += [self._cutoff() - dt.timedelta(microseconds=1), self._cutoff() + dt.timedelta(microseconds=1)]
        rng, rows = self.rng, self.rows["execution_logs"]
        account_id, ip, agent = self.person.account_id, self.ip, self.person.user_agent
        for moment in moments:
            rows.append(
                (
                    make_uuid(rng),
                    moment,
                    account_id,
                    rng.choice(tasks),
                    rng.choice(sessions),
                    rng.choice(_MODEL_IDS),
                    rng.choice(texts.LOG_STATES),
                    rng.randrange(80, 9_000),
                    rng.randrange(20, 4_000),
                    rng.randrange(1, 2_000),
                    ip,
                    agent,
                )
            )

    def _books(self) -> None:
        """Invoices and ledger: recent ones, for old customers also on both sides of their end."""
        days = [(self.end - (5 + 31 * month) * DAY).date() for month in range(1 + self.rng.randrange(3))]
        if self.person.old_customer:
            days += [dt.date(self.now.year - 11, 12, 30), dt.date(self.now.year - 10, 1, 2)]
        rng, person = self.rng, self.person
        for ordinal, day in enumerate(days):
            net, moment = Decimal(rng.choice((20, 90))), dt.datetime.combine(day, dt.time(9, 30), dt.UTC)
            self._add(
                "invoices",
                make_uuid(rng),
                f"INV-{day.year}-{person.index:08d}-{ordinal}",
                person.account_id,
                person.name,
                person.street,
                person.country,
                net,
                Decimal("19.00"),
                net * Decimal("1.19"),
                "EUR",
                f"pay_{rng.randbytes(8).hex()}",
                day,
                moment,
            )
            self._add("credit_ledger", make_uuid(rng), person.account_id, "purchase", net * 250, day, moment)
            self._add(
                "credit_ledger",
                make_uuid(rng),
                person.account_id,
                "spend",
                -Decimal(rng.randrange(1, 900_000)) / 10_000,
                day,
                moment,
            )

    def _support(self) -> None:
        rng, person = self.rng, self.person
        ticket_id, opened_at = make_uuid(rng), self.end - (2 + rng.random() * 90) * DAY
        self._add(
            "support_tickets",
            ticket_id,
            person.account_id,
            rng.choice(texts.SUBJECTS),
            "solved",
            opened_at,
            opened_at + DAY,
        )
        self._add(
            "ticket_messages",
            make_uuid(rng),
            ticket_id,
            "customer",
            rng.choice(texts.QUESTIONS).format(**self.words),
            opened_at,
        )
        self._add("ticket_messages", make_uuid(rng), ticket_id, "agent", rng.choice(texts.REPLIES), opened_at + DAY / 2)

    def _choices(self) -> None:
        rng, person = self.rng, self.person
        granted = rng.randrange(3) == 0
        self._add(
            "cookie_consents",
            make_uuid(rng),
            person.account_id,
            "analytics",
            granted,
            not granted and rng.randrange(2) == 0,
            "2026-03",
            person.created_at,
        )
        for metric in texts.METRICS[: 1 + rng.randrange(3)]:
            self._add(
                "quality_scores",
                make_uuid(rng),
                person.account_id,
                metric,
                Decimal(rng.randrange(10_000)) / 10_000,
                json.dumps({"tasks": self.size.tasks_each, "window_days": 30}),
                self.end - DAY,
            )
