"""The table that a campaign prints."""

from collections.abc import Iterable

from tests.kill.campaign import Outcome
from tests.kill.checker import Fault


def table(outcome: Outcome) -> str:
    """Give the figures as text: kills, faults, requests, the five figures that have to be zero, times."""
    killed = sum(outcome.kills.values())
    lines = [
        f"fault campaign, {outcome.form.name} form, seed {outcome.seed}",
        "",
        *_row("kills (SIGKILL to a running process)", killed, _pairs(outcome.kills)),
        *_row("faults of all kinds", sum(outcome.faults.values()), _pairs(outcome.faults)),
        *_row("faults that this machine does not allow", outcome.refused),
        *_row("replicas of each service", outcome.form.replicas),
        *_row("requests", sum(sum(ends.values()) for ends in outcome.requests.values())),
    ]
    lines += [f"    {right:<20} {', '.join(_pairs(ends))}" for right, ends in outcome.requests.items()]
    lines += [
        *_row("events (submissions and outbox rows)", outcome.events),
        *_row("mails whose fate was unknown, counted", outcome.uncertain_mails),
        *_row("processes that ended by themselves", len(outcome.ended), sorted(set(outcome.ended))),
        "",
        *(line for fault in Fault for line in _row(fault.value, outcome.count(fault))),
        "",
        *_row("drained after the last fault", f"{outcome.drained_s:.1f} s"),
        *_row("took", f"{outcome.took_s:.0f} s"),
    ]
    return "\n".join(lines)


def _row(name: str, value: object, details: Iterable[str] = ()) -> list[str]:
    return [f"  {name:<40} {value}", *(f"      {detail}" for detail in details)]


def _pairs(counts: object) -> list[str]:
    return [f"{name} {count}" for name, count in dict(counts).items()]  # type: ignore[call-overload]  # a mapping
