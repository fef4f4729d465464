"""What images install is enough: `deploy/requirements.lock` alone, in an environment of its own, and every module and codec used there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = [ROOT / "libs/habeas", *sorted(path for path in (ROOT / "services").iterdir() if path.is_dir())]

USES_ALL: Final = """
import importlib, pkgutil, sys
from aiokafka import codec
from habeas.chassis import records

for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if not found.name.endswith(".__main__"):
            importlib.import_module(found.name)

text = b"what producers send " * 1000
packed = {1: codec.gzip_encode(text), 2: codec.snappy_encode(text), 3: codec.lz4_encode(text), 4: codec.zstd_encode(text)}
head = bytes(61)
for number, data in packed.items():
    assert records._unpacked(head[:22] + bytes([number]) + head[23:] + data) == text, number
print(len(sys.modules))
"""


def test_every_module_and_codec_works_with_the_packages_of_the_images(tmp_path: Path) -> None:
    """A package that only the development environment has would be missed in production alone."""
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    run(
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--requirement",
        str(ROOT / "deploy/requirements.lock"),
    )
    packages = [path.name for source in SOURCES for path in sorted(source.iterdir()) if (path / "__init__.py").exists()]
    assert {"habeas", "request_intake", "audit_ledger"} <= {*packages}
    said = run(str(python), "-c", USES_ALL, *packages, PYTHONPATH=os.pathsep.join(map(str, SOURCES)))
    assert int(said) > 500


def run(*command: str, **environment: str) -> str:
    """Run a program, with nothing of the development environment in sight, and give what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
