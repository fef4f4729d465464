"""A small platform: accounts, what hangs on them over one join, and invoices that the law keeps; its map and its policy.

It lies in a schema of its own beside the services', which reach it only through the data map, each as its own role.
"""

import atexit
import base64
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from habeas.datamap.map.loading import load_datamap
from habeas.datamap.map.model import DataMap
from habeas.datamap.policy.model import Policy, load_policy
from habeas.kit.attestation import Issuer

ACCOUNTS: Final = ("acc_1", "acc_2", "acc_3", "acc_4")
SILENT: Final = "acc_2"
"""Has no address: nobody can be mailed."""

UNKNOWN: Final = "acc_9"
"""Is an account of no store."""

ISSUER: Final = Issuer("accounts", "k1", Ed25519PrivateKey.from_private_bytes(b"simulated issuer, 32 bytes long."))
TASKS: Final = 2
STEPS_EACH: Final = 2

SCHEMA: Final = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.accounts (id text PRIMARY KEY, email text, name text NOT NULL, language text NOT NULL);
    CREATE TABLE shop.tasks (id bigint PRIMARY KEY, account_id text NOT NULL REFERENCES shop.accounts (id), prompt text NOT NULL);
    CREATE INDEX ON shop.tasks (account_id);
    CREATE TABLE shop.steps (id bigint PRIMARY KEY, task_id bigint NOT NULL REFERENCES shop.tasks (id), kind text NOT NULL);
    CREATE INDEX ON shop.steps (task_id);
    CREATE TABLE shop.invoices (
        id bigint PRIMARY KEY, account_id text REFERENCES shop.accounts (id) ON DELETE SET NULL, billing_name text NOT NULL,
        issued_on date NOT NULL);
    CREATE INDEX ON shop.invoices (account_id);
    GRANT USAGE ON SCHEMA shop TO request_intake, erasure_executor, export_builder, notification_mailer;
    GRANT SELECT ON ALL TABLES IN SCHEMA shop TO request_intake, erasure_executor, export_builder, notification_mailer;
    GRANT UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO erasure_executor;
"""

ADD_PERSON: Final = """
    WITH a AS (
        INSERT INTO shop.accounts VALUES ($1, $2, 'Name of ' || $1, 'en') RETURNING id
    ), t AS (
        INSERT INTO shop.tasks SELECT $3 * 100 + n, id, 'prompt of ' || id FROM a, generate_series(1, 2) AS n RETURNING id
    ), s AS (
        INSERT INTO shop.steps SELECT t.id * 10 + n, t.id, 'kind' FROM t, generate_series(1, 2) AS n
    )
    INSERT INTO shop.invoices SELECT $3, id, 'Name of ' || id, '2026-03-15' FROM a
"""

ADD_TASK: Final = """
    WITH t AS (INSERT INTO shop.tasks SELECT $2, id, 'a late prompt' FROM shop.accounts WHERE id = $1 RETURNING id)
    INSERT INTO shop.steps SELECT t.id * 10 + n, t.id, 'kind' FROM t, generate_series(1, 2) AS n
"""

POLICY: Final = """
policy: {version: "1", controller: {name: A, country: DE, time_zone: Europe/Berlin, dpo: privacy@example.org, authority: B}}
regimes: [gdpr]
answer_within: 30d
notice_of_changes: 30d
children: {under: 16}
categories:
  account: {data: [user.name], source: person, portable: given}
  usage: {data: [user.behavior], source: observed, portable: observed}
  payment: {data: [user.financial], source: person, portable: given}
purposes:
  run: {categories: [account, usage, payment], basis: contract}
retention:
  invoices: {for: 10y, from: end_of_year, ground: legal_obligation, law: "§ 147 AO"}
"""

DATAMAP: Final = """
dataset:
  - fides_key: shop
    habeas: {store: shop, connection: SHOP_DSN, schema: shop, root: accounts}
    collections:
      - name: accounts
        habeas: {category: account, on_erasure: delete}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, identity: account_id}}
          - {name: email, data_categories: [user.contact.email], habeas: {contact: address}}
          - {name: name, data_categories: [user.name], habeas: {contact: name}}
          - {name: language, data_categories: [user.demographic.language], habeas: {contact: language}}
      - name: tasks
        habeas: {category: usage, on_erasure: delete}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: account_id
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: shop, field: accounts.id, direction: from}]}
          - {name: prompt, data_categories: [user.content]}
      - name: steps
        habeas: {category: usage, on_erasure: delete}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: task_id
            data_categories: [system.operations]
            fides_meta: {references: [{dataset: shop, field: tasks.id, direction: from}]}
          - {name: kind, data_categories: [system.operations]}
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
          - {name: issued_on, data_categories: [user.financial]}
"""


class Documents:
    """Policy and map as files, and what they load to: read once, since nobody changes them."""

    def __init__(self) -> None:
        root = Path(tempfile.mkdtemp(prefix="habeas-simulated-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        public = base64.b64encode(ISSUER.private_key.public_key().public_bytes_raw()).decode()
        issuers = f'attestation_issuers:\n  {ISSUER.name}: {{keys: {{{ISSUER.key_id}: "{public}"}}}}\n'
        self.policy_file = root / "policy.yaml"
        self.policy_file.write_text(POLICY + issuers, encoding="utf-8")
        self.datamap_dir = root / "datamap"
        self.datamap_dir.mkdir()
        (self.datamap_dir / "shop.yaml").write_text(DATAMAP, encoding="utf-8")
        self.artefacts_dir = root / "artefacts"
        self.policy: Policy = load_policy(self.policy_file)
        self.datamap: DataMap = load_datamap(self.datamap_dir, self.policy)


@cache
def documents() -> Documents:
    """Give this process's documents."""
    return Documents()


async def open_shop(admin: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make the tables and their people."""
    await admin.execute(SCHEMA)
    for number, account in enumerate(ACCOUNTS, 1):
        await admin.execute(ADD_PERSON, account, None if account == SILENT else f"{account}@example.org", number)
