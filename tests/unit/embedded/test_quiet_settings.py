from habeas_embedded.kafka import own_properties
from tests.architecture.repository import ROOT

_NOT_IN_CONTAINERS = {
    "log.initial.task.delay.ms",  # no setting of Kafka's that it documents
    "metric.reporters",  # whoever runs containers may want to look at them with Java's tools
}


def test_compose_has_the_quiet_settings_of_the_embedded_node() -> None:
    """Kafka in Docker Compose rests as quietly as the embedded one: same settings, same values."""
    lines = (ROOT / "deploy/kafka/kafka.env").read_text(encoding="utf-8").splitlines()
    env = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    wanted = {name: value for name, value in own_properties(hasty=False).items() if name not in _NOT_IN_CONTAINERS}
    assert {name: env.get(f"KAFKA_{name.upper().replace('.', '_')}") for name in wanted} == wanted


def test_what_only_tests_need_is_asked_for() -> None:
    """A session that ends on a busy machine, and looks at the disk every second, are in no node that does not ask for them."""
    quiet, hasty = own_properties(hasty=False), own_properties(hasty=True)
    assert int(quiet["broker.session.timeout.ms"]) > int(hasty["broker.session.timeout.ms"])
    assert int(quiet["log.retention.check.interval.ms"]) > int(hasty["log.retention.check.interval.ms"])
    assert "log.segment.delete.delay.ms" not in quiet


def test_page_about_servers_at_rest_names_every_setting() -> None:
    """Whoever wonders why a setting is there finds what it bought."""
    page = (ROOT / "docs/servers-at-rest.md").read_text(encoding="utf-8")
    assert [name for name in own_properties(hasty=False) if f"`{name}" not in page] == []
