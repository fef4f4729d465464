"""A small platform for tests of the data map.

Content lies three joins away, a log by days has no foreign keys, invoices are kept, and a column of one person's rows names
another person.
"""

from collections.abc import Sequence
from pathlib import Path

import asyncpg

from habeas.datamap.map.loading import load_datamap
from habeas.datamap.map.model import StoreMap
from habeas.datamap.policy.model import Policy, load_policy

SCHEMA = """
CREATE TABLE accounts (
    id text PRIMARY KEY, email text NOT NULL UNIQUE, name text, language text NOT NULL DEFAULT 'en', secret bytea,
    closed_at timestamptz
);
CREATE TABLE tasks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id text NOT NULL REFERENCES accounts (id),
    approved_by text REFERENCES accounts (id), prompt text, score numeric, notes json, created_at timestamptz NOT NULL
);
CREATE INDEX ON tasks (account_id);
CREATE TABLE steps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, task_id bigint NOT NULL REFERENCES tasks (id), kind text NOT NULL
);
CREATE INDEX ON steps (task_id);
CREATE TABLE contents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, step_id bigint NOT NULL REFERENCES steps (id), body text NOT NULL
);
CREATE INDEX ON contents (step_id);
CREATE TABLE logs (id bigint NOT NULL, account_id text NOT NULL, logged_at timestamptz NOT NULL, line text,
    PRIMARY KEY (id, logged_at)) PARTITION BY RANGE (logged_at);
CREATE TABLE invoices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id text REFERENCES accounts (id) ON DELETE SET NULL,
    billing_name text, cents integer NOT NULL, issued_on date NOT NULL
);
CREATE TABLE profiles (account_id text PRIMARY KEY, bio text, region text NOT NULL);
CREATE TABLE models (id text PRIMARY KEY, price numeric NOT NULL);
"""

POLICY = """
policy: {version: "1", controller: {name: A, country: DE, time_zone: Europe/Berlin, dpo: privacy@example.org, authority: B}}
regimes: [gdpr]
answer_within: 30d
notice_of_changes: 30d
children: {under: 16}
categories:
  account: {data: [user.name], source: person, portable: given}
  usage: {data: [user.behavior], source: observed, portable: observed}
  content: {data: [user.content], source: person, portable: given}
  scores: {data: [user.behavior], source: derived, portable: no}
  payment: {data: [user.financial], source: person, portable: given}
purposes:
  run: {categories: [account, usage, content, scores, payment], basis: contract}
retention:
  account: {while: account_open, then: 30d}
  execution: {for: 90d}
  invoices: {for: 10y, from: end_of_year, ground: legal_obligation, law: "§ 147 AO"}
"""

DATAMAP = """
dataset:
  - fides_key: shop
    habeas: {store: shop, connection: SHOP_DSN, root: accounts}
    collections:
      - name: accounts
        habeas: {category: account, retention: account, age: closed_at, on_erasure: delete}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, identity: account_id}}
          - {name: email, data_categories: [user.contact.email], habeas: {contact: address}}
          - {name: name, data_categories: [user.name], habeas: {contact: name}}
          - {name: language, data_categories: [user.demographic.language], habeas: {contact: language}}
          - {name: secret, data_categories: [user.authorization], habeas: {export: never}}
          - {name: closed_at, data_categories: [system.operations]}
      - name: tasks
        habeas: {category: usage, retention: execution, age: created_at, on_erasure: delete, path: account_id}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: account_id
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: shop, field: accounts.id, direction: from}]}
          - name: approved_by
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: shop, field: accounts.id, direction: from}]}
            habeas: {anonymise: null}
          - {name: prompt, data_categories: [user.content], habeas: {category: content}}
          - {name: score, data_categories: [user.behavior], habeas: {category: scores}}
          - {name: notes, data_categories: [user.content], habeas: {category: content}}
          - {name: created_at, data_categories: [system.operations]}
      - name: steps
        habeas: {category: usage, retention: execution, age: parent.created_at, on_erasure: delete}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: task_id
            data_categories: [system.operations]
            fides_meta: {references: [{dataset: shop, field: tasks.id, direction: from}]}
          - {name: kind, data_categories: [system.operations]}
      - name: contents
        habeas: {category: content, retention: execution, on_erasure: delete}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: step_id
            data_categories: [system.operations]
            fides_meta: {references: [{dataset: shop, field: steps.id, direction: from}]}
          - {name: body, data_categories: [user.content]}
      - name: logs
        habeas: {category: usage, retention: execution, age: logged_at, on_erasure: delete, partitioned: day}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - {name: account_id, data_categories: [user.unique_id], fides_meta: {identity: account_id}}
          - {name: logged_at, data_categories: [system.operations]}
          - {name: line, data_categories: [user.behavior]}
      - name: invoices
        habeas:
          category: payment
          retention: invoices
          age: issued_on
          on_erasure: {keep: legal_obligation, until: invoices, anonymise: [account_id, billing_name]}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: account_id
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: shop, field: accounts.id, direction: from}]}
          - {name: billing_name, data_categories: [user.name], habeas: {anonymise: erased}}
          - {name: cents, data_categories: [user.financial]}
          - {name: issued_on, data_categories: [user.financial]}
      - name: profiles
        habeas: {category: account, on_erasure: anonymise}
        fields:
          - {name: account_id, data_categories: [user.unique_id], fides_meta: {primary_key: true, identity: account_id}}
          - {name: bio, data_categories: [user.content], habeas: {anonymise: null}}
          - {name: region, data_categories: [user.contact.address], habeas: {anonymise: "o'erased", export: named_only}}
      - name: models
        habeas: {personal: false, reason: the price list}
        fields: []
"""

PERSONAL = ("accounts", "contents", "invoices", "logs", "profiles", "steps", "tasks")


def write_map(directory: Path, datamap: str = DATAMAP, policy: str = POLICY) -> tuple[Path, Policy]:
    """Write both files; give the map's path and the policy."""
    (directory / "policy.yaml").write_text(policy, encoding="utf-8")
    path = directory / "map.yaml"
    path.write_text(datamap, encoding="utf-8")
    return path, load_policy(directory / "policy.yaml")


def read_map(directory: Path, datamap: str = DATAMAP) -> tuple[StoreMap, Policy]:
    """The shop's map and policy, loaded."""
    path, policy = write_map(directory, datamap)
    return load_datamap(path, policy).store("shop"), policy


async def open_shop(conn: "asyncpg.Connection[asyncpg.Record]", people: Sequence[str]) -> None:
    """Make the schema and give each person 1 account, 2 tasks, 4 steps, 8 contents, 3 log lines, 1 invoice, 1 profile."""
    await conn.execute(SCHEMA)
    for day in range(20, 25):
        await conn.execute(
            f"CREATE TABLE logs_{day} PARTITION OF logs FOR VALUES FROM ('2026-11-{day}T00:00Z') TO ('2026-11-{day + 1}T00:00Z')"
        )
    await conn.execute("INSERT INTO models VALUES ('m', 1)")
    for person in people:
        await add_person(conn, person)


async def add_person(
    conn: "asyncpg.Connection[asyncpg.Record]", person: str, created: str = "2026-11-01T10:00Z"
) -> None:
    """Insert one person with their rows, everything dated `created`, log lines on three days of November 2026."""
    await conn.execute(
        r"""
        WITH a AS (
            INSERT INTO accounts (id, email, name, secret) VALUES ($1, $1 || '@example.org', 'Name of ' || $1, '\x00ff')
            RETURNING id
        ), t AS (
            INSERT INTO tasks (account_id, prompt, score, notes, created_at)
            SELECT id, 'prompt "' || n || E'" of\n' || id, n / 3.0, E'{"a":\n1}', $2::text::timestamptz
              FROM a, generate_series(1, 2) AS n RETURNING id
        ), s AS (
            INSERT INTO steps (task_id, kind) SELECT t.id, 'kind of ' || $1 FROM t, generate_series(1, 2) RETURNING id
        ), c AS (
            INSERT INTO contents (step_id, body) SELECT s.id, 'body of ' || $1 FROM s, generate_series(1, 2)
        ), l AS (
            INSERT INTO logs
            SELECT n + 10 * abs(hashtext($1)::bigint), $1, '2026-11-20T12:00Z'::timestamptz + n * interval '1 day', 'line'
              FROM generate_series(0, 2) AS n
        ), i AS (
            INSERT INTO invoices (account_id, billing_name, cents, issued_on) SELECT id, 'Name', 100, '2026-03-15' FROM a
        )
        INSERT INTO profiles SELECT id, 'bio of ' || id, 'DE' FROM a
        """,
        person,
        created,
    )


async def checksums(conn: "asyncpg.Connection[asyncpg.Record]", *, without: Sequence[str] = ()) -> dict[str, str]:
    """A fingerprint per table of all rows that no column of which names one of the people in `without`."""
    sums: dict[str, str] = {}
    for table in (*PERSONAL, "models"):
        sums[table] = await conn.fetchval(
            f"SELECT count(*) || ':' || coalesce(md5(string_agg(r::text, '|' ORDER BY r::text)), '') FROM {table} AS r"
            " WHERE NOT EXISTS (SELECT FROM unnest($1::text[]) AS p WHERE r::text LIKE '%' || p || '%')",
            list(without),
        )
    return sums
