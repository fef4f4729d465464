import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.repository import ROOT, SERVICES
from tests.architecture.test_tooling import locked

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|DSN|KEK$")
OUR_CONTAINERS = (*SERVICES, "migrate")


def compose() -> dict[str, Any]:
    """docker-compose.yml, anchors resolved and variables as written."""
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return parsed


def test_every_port_is_bound_to_loopback() -> None:
    """Nothing of a developer's fleet can be reached from another machine."""
    ports = [port for container in compose()["services"].values() for port in container.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_stands_in_the_file() -> None:
    """Every password comes from a variable that has to be set; what is secret is never a literal."""
    for name, container in compose()["services"].items():
        for variable, value in container.get("environment", {}).items():
            if SECRET.search(variable):
                asked = re.sub(r"\$\{\w+:\?[^}]*\}", "asked", value)
                assert asked == "asked" or re.search(r"://\w+:asked@", asked), f"{name}: {variable}"


@pytest.mark.parametrize("name", OUR_CONTAINERS)
def test_our_containers_have_no_rights(name: str) -> None:
    """Our programs run without root, without capabilities and on a file system that they cannot change."""
    container = compose()["services"][name]
    assert container["user"].startswith("${HABEAS_USER:?")
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "privileged" not in container


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_logs_in_as_itself(name: str) -> None:
    """Image, role and password of a service bear its own name, so that grants keep services apart."""
    container = compose()["services"][name]
    role = name.replace("-", "_")
    assert container["build"]["args"] == {"SERVICE": name}
    dsn = container["environment"][f"{role.upper()}_DATABASE_DSN"]
    assert dsn == f"postgresql://{role}:${{{role.upper()}_PASSWORD:?}}@postgres:5432/habeas"


@pytest.mark.parametrize("name", SERVICES)
def test_service_understands_its_environment(name: str, tmp_path: Path) -> None:
    """Every variable that a container is given is one that the service knows, with a value that it takes."""
    ring = tmp_path / "kek"
    ring.touch(mode=0o600)
    places = {
        "/run/secrets/kek": str(ring),
        "/etc/habeas/policy.yaml": str(ROOT / "deploy/demo/policy.yaml"),
        "/etc/habeas/datamap": str(ROOT / "deploy/demo/datamap"),
    }
    given = {variable: str(value) for variable, value in compose()["services"][name]["environment"].items()}
    filled = {
        variable: places.get(value, re.sub(r"\$\{\w+:([?-])([^}]*)\}", lambda m: m[2] if m[1] == "-" else "x", value))
        for variable, value in given.items()
    }
    import_module(f"{name.replace('-', '_')}.settings").Settings.load(filled)


def test_every_role_is_given_a_password() -> None:
    """deploy/postgres/init.sh lets every role log in that the two SQL files make."""
    made: set[str] = set()
    for path in ("deploy/postgres/roles.sql", "deploy/demo/roles.sql"):
        array = re.search(r"FOREACH \w+ IN ARRAY ARRAY\[([^]]+)\]", (ROOT / path).read_text(encoding="utf-8"))
        assert array, path
        made.update(re.findall(r"'(\w+)'", array[1]))
    script = (ROOT / "deploy/postgres/init.sh").read_text(encoding="utf-8")
    listed = re.search(r"for role in ([\w\s\\]+); do", script)
    assert listed
    assert set(listed[1].replace("\\", " ").split()) == made
    passwords = {
        variable for variable in compose()["services"]["postgres"]["environment"] if variable.endswith("_PASSWORD")
    }
    assert passwords == {"POSTGRES_PASSWORD", *(f"{role.upper()}_PASSWORD" for role in made)}


def test_files_that_containers_mount_exist() -> None:
    """Docker makes an empty folder of a file that is missing; so none may be."""
    for name, container in compose()["services"].items():
        for volume in container.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), f"{name}: {source}"


def test_image_holds_what_the_repository_tests() -> None:
    """The images' lock is a part of the lock that tests run with: same versions, hashes required."""
    ours = locked("deploy/requirements.lock")
    assert ours
    assert ours.items() <= locked("requirements.lock").items()
    installs = re.findall(r"pip install (.*)", (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8"))
    assert installs
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in installs)


def test_health_checks_ask_what_services_answer() -> None:
    """Image and Compose ask the chassis' own readiness path, so that a ready service is never taken for a dead one."""
    asked = [(ROOT / path).read_text(encoding="utf-8") for path in ("deploy/Dockerfile", "docker-compose.yml")]
    paths = {path for text in asked for path in re.findall(r"127\.0\.0\.1:8080(/\w+)", text)}
    health = (ROOT / "libs/habeas/habeas/chassis/health.py").read_text(encoding="utf-8")
    assert paths == {"/readyz"}
    assert all(f'"{path}"' in health for path in paths)
