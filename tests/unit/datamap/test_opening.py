"""Where the address of a store comes from, and which address production takes."""

from pathlib import Path

import pytest

from habeas.datamap.map.loading import load_datamap
from habeas.datamap.postgres import open_stores
from habeas.datamap.source import ConfigurationError
from tests.support.shop import DATAMAP, write_map

PRIVATE = "postgresql://habeas:hunter2@db.example.org/shop?sslmode=verify-full&ssl_min_protocol_version=TLSv1.3"
READABLE = (
    "postgresql://habeas:hunter2@db.example.org/shop?sslmode=disable",
    "postgresql://habeas:hunter2@db.example.org/shop",
    "postgresql://habeas:hunter2@127.0.0.1/shop?sslmode=disable",
    "postgresql://habeas:hunter2@db.example.org/shop?sslmode=verify-full",
    "postgresql://habeas:hunter2@db.example.org/shop?sslmode=require&ssl_min_protocol_version=TLSv1.3",
)
STORES = DATAMAP + DATAMAP.replace("dataset:\n", "").replace("fides_key: shop", "fides_key: forum").replace(
    "store: shop, connection: SHOP_DSN", "store: forum, connection: FORUM_DSN"
).replace("dataset: shop", "dataset: forum")


@pytest.mark.parametrize("readable", READABLE)
@pytest.mark.parametrize("variable", ["SHOP_DSN", "FORUM_DSN"])
def test_production_refuses_every_store_that_others_could_read(tmp_path: Path, variable: str, readable: str) -> None:
    """Each store's variable is held to the rule of the fleet's own database, and named; its value is not shown. Development is not."""
    path, policy = write_map(tmp_path, STORES)
    datamap = load_datamap(path, policy)
    env = {"SHOP_DSN": PRIVATE, "FORUM_DSN": PRIVATE, variable: readable}
    with pytest.raises(ConfigurationError) as caught:
        open_stores(datamap, policy, env=env, production=True)
    (problem,) = caught.value.problems
    assert problem.path == variable
    assert f"write {variable} with sslmode=verify-full and ssl_min_protocol_version=TLSv1.3" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(open_stores(datamap, policy, env=env, production=False)) == 2
    assert len(open_stores(datamap, policy, env=env | {variable: PRIVATE}, production=True)) == 2


def test_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """Every variable that is missing is told at once."""
    path, policy = write_map(tmp_path, STORES)
    with pytest.raises(ConfigurationError) as caught:
        open_stores(load_datamap(path, policy), policy, env={}, production=False)
    assert {problem.path for problem in caught.value.problems} == {"SHOP_DSN", "FORUM_DSN"}
