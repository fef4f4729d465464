"""An attempt that dies behind the store's commit, over a map with links: the report is that of the first, whoever the rows belong to."""

from pathlib import Path

from erasure_executor.lifecycle import with_planned
from habeas.contracts.vocabulary import TableResult
from tests.integration.datamap.test_one_person import column, opened
from tests.integration.datamap.test_rows_of_others import ALL, DDL, MORE, told


async def test_the_report_of_an_attempt_that_died_is_made_up_again(empty_database: str, tmp_path: Path) -> None:
    """What was planned comes back by table and result; a shared row that stayed is not told as erased, and rows that let go are lost."""
    async with await opened(empty_database, tmp_path, DDL + MORE, *ALL) as store:
        planned = (await store.planned(["1"]))["1"]
        first = (await store.erase(["1"]))["1"]
        second = (await store.erase(["1"]))["1"]
    assert {each.result for each in second} == {TableResult.NOTHING_HELD}
    assert with_planned(first, planned) == first
    report = told(with_planned(second, planned))
    for table, results in told(first).items():
        lost = {result: rows for result, rows in results.items() if result is not TableResult.DETACHED}
        assert report[table] == lost, table
    assert await column(empty_database, "SELECT id FROM boards ORDER BY id") == [1, 3]
