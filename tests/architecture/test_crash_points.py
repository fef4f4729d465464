"""The list of crash points is complete: every step that outlives the process is followed by one before the next step."""

import re
from collections.abc import Iterator

import pytest

from habeas.chassis.crash import Point
from tests.architecture.crash_points import HARMLESS, STEPS, Reading, read, sources

POINTS = frozenset(Point.__members__)
CODE = sources()
PASSES = re.compile(r"^ *crash\.at\(Point\.(\w+).*\)\n", re.MULTILINE)


def _uses() -> Iterator[tuple[str, str]]:
    for module, (text, _) in CODE.items():
        for use in PASSES.finditer(text):
            yield module, use[1]


def _changed(module: str, text: str) -> Reading:
    return read({**CODE, module: (text, CODE[module][1])}, POINTS)


def test_every_step_is_followed_by_a_crash_point() -> None:
    """No step without a point behind it, no point without a place, no transaction without a name of its own, no dead entry."""
    assert read(CODE, POINTS).complaints == []
    assert {use for _, use in _uses()} == POINTS
    assert len(STEPS) + len(HARMLESS) > len(POINTS)


@pytest.mark.parametrize(("module", "name"), sorted(_uses()))
def test_a_point_that_is_taken_away_is_missed(module: str, name: str) -> None:
    """The check fails for the code with any one of its points removed."""
    text, count = re.subn(rf"(?m)^ *crash\.at\(Point\.{name}\b.*\)\n", "", CODE[module][0])
    assert count == 1
    complaints = _changed(module, text).complaints
    assert any(name in complaint or complaint.startswith(module) for complaint in complaints), complaints


@pytest.mark.parametrize(
    ("module", "old", "new", "told"),
    [
        (
            "export_builder/sweeps.py",
            "                await vault.delete(export.export_id, export.attempts)\n",
            "                await vault.delete(export.export_id, export.attempts)\n" * 2,
            "no crash point follows the step vault.delete in delete_withdrawn",
        ),
        (
            "chassis/relay.py",
            "        await self._facts_producer.publish(records, _PUBLISH_TIMEOUT_S)\n",
            "        await self._producer.send(b'')\n",
            "self._producer.send in _publish_facts is neither a step nor known to be harmless",
        ),
        (
            "chassis/relay.py",
            "        crash.at(Point.RELAY_FACTS_MARKED)\n",
            "",
            "no crash point follows the step self._database.change in _publish_facts",
        ),
        (
            "chassis/relay.py",
            'self._database.run("relay-sequence"',
            'self._database.run("inbox-batch"',
            "transaction inbox-batch is opened at 2 places",
        ),
        (
            "chassis/positions.py",
            'database.run("positions-set", lambda tx: _set(tx, anew))',
            'database.change("positions-set", store.SET_POSITIONS)',
            "database.change in settle is neither a step nor known to be harmless",
        ),
        (
            "export_builder/gateways/builder.py",
            "path.unlink",
            "path.rename",
            "path.rename in _delete is neither a step nor known to be harmless",
        ),
        (
            "chassis/lanes.py",
            "            crash.at(Point.LANES_TAKEN)\n",
            "",
            "no crash point follows the step tx.fetch(store.TAKE_LANES) in _balance",
        ),
        (
            "audit_ledger/gateways.py",
            "            crash.at(Point.TILE_WRITTEN)\n",
            "        crash.at(Point.TILE_WRITTEN)\n",
            "no crash point follows the step write_tiles in _write",
        ),
        (
            "export_builder/sweeps.py",
            "                crash.at(Point.ARTEFACT_DELETED)\n",
            "                crash.at(Point.NEVER)\n",
            "crash point ARTEFACT_DELETED stands at 0 places",
        ),
    ],
)
def test_what_is_wrong_is_told(module: str, old: str, new: str, told: str) -> None:
    """Two steps in a row, an unknown way out, a name used twice, a point outside of its loop, a point that does not exist."""
    text = CODE[module][0]
    assert text.count(old) == 1
    assert any(told in complaint for complaint in _changed(module, text.replace(old, new)).complaints)
