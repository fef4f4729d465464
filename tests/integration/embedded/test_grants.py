from itertools import product

import asyncpg
import pytest

from habeas_embedded.provision import OPERATOR, SERVICES, Access, apply_roles, migrate_all

SCHEMAS = tuple(service.replace("-", "_") for service in SERVICES)


async def may(database: Access, role: str, statement: str) -> bool:
    """Say whether a role may run a statement; what it changes is undone."""
    connection = await asyncpg.connect(database.dsn(role))
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement)
        await transaction.rollback()
    except asyncpg.InsufficientPrivilegeError:
        return False
    finally:
        await connection.close()
    return True


@pytest.mark.parametrize("role", SCHEMAS)
async def test_a_service_reaches_its_own_schema_and_no_other(database: Access, role: str) -> None:
    """A service reads and changes rows of its own inbox, and not even looks at another service's."""
    for schema, statement in product(SCHEMAS, ("SELECT FROM {}.inbox", "DELETE FROM {}.inbox")):
        assert await may(database, role, statement.format(schema)) is (schema == role)


@pytest.mark.parametrize("role", SCHEMAS)
async def test_no_service_makes_or_drops_tables(database: Access, role: str) -> None:
    """Tables come from migrations alone: a service makes none, in no schema, not even a temporary one, and drops none."""
    attempts = (
        f"CREATE TABLE {role}.mine (n int)",
        "CREATE TABLE public.mine (n int)",
        "CREATE TEMPORARY TABLE mine (n int)",
        "CREATE SCHEMA mine",
        f"DROP TABLE {role}.inbox",
        f"TRUNCATE {role}.inbox",
    )
    assert [statement for statement in attempts if await may(database, role, statement)] == []


@pytest.mark.parametrize("role", SCHEMAS)
async def test_keys_are_made_by_all_and_destroyed_by_one(database: Access, role: str) -> None:
    """Every service reads and makes wrapped keys, erasure-executor alone destroys them, nobody changes one."""
    rights = {
        "SELECT": "SELECT FROM sealing.subject_keys",
        "INSERT": "INSERT INTO sealing.subject_keys SELECT * FROM sealing.subject_keys",
        "UPDATE": "UPDATE sealing.subject_keys SET kek_id = ''",
        "DELETE": "DELETE FROM sealing.subject_keys",
    }
    has = {right for right, statement in rights.items() if await may(database, role, statement)}
    assert has == {"SELECT", "INSERT"} | ({"DELETE"} if role == "erasure_executor" else set())


async def test_operator_looks_and_does_not_touch(database: Access) -> None:
    """The operator's role reads every service's tables but no keys, and changes nothing."""
    for schema in SCHEMAS:
        assert await may(database, OPERATOR, f"SELECT FROM {schema}.inbox")
        assert not await may(database, OPERATOR, f"DELETE FROM {schema}.inbox")
    assert not await may(database, OPERATOR, "SELECT FROM sealing.subject_keys")


async def test_provisioning_again_changes_nothing(database: Access) -> None:
    """Roles and migrations applied a second time leave every right in the catalogue as it was."""
    before = await rights(database)
    await apply_roles(database)
    assert await migrate_all(database.owner_dsn) == 0
    assert await rights(database) == before


async def rights(database: Access) -> list[tuple[object, ...]]:
    """Read all rights on tables from PostgreSQL's own catalogue."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:
        rows = await connection.fetch(
            "SELECT relnamespace::regnamespace::text, relname, relacl::text FROM pg_class"
            " WHERE relnamespace::regnamespace::text = ANY($1) ORDER BY 1, 2",
            [*SCHEMAS, "sealing"],
        )
    finally:
        await connection.close()
    return [tuple(row) for row in rows]
