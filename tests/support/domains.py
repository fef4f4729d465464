"""A second opinion on international domains: UTS 46 as Node.js has it, by way of the ada library."""

import json
import shutil
import subprocess
import unicodedata
from collections.abc import Mapping
from typing import Final

import pytest

from tests.support.waiting import HANGS_S

_SCRIPT = (
    "const {domainToASCII} = require('node:url');"
    "const given = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));"
    "console.log(JSON.stringify(given.map(domainToASCII)));"
)


# What UTS 46 maps or ignores since Unicode 15.1 and 16, and refused before: Georgian capitals, palochka, Khmer inherent vowels.
_MAPPED_LATELY: Final = frozenset(map(chr, (*range(0x10A0, 0x10C6), 0x10C7, 0x10CD, 0x04C0, 0x17B4, 0x17B5)))


def differing(ours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Give the domains (as written, to what we make of them) of which Node.js makes something else, with both.

    Where it refuses a domain because its Unicode tables are older than ours it has no opinion. Skips the test where there is no Node.js.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    done = subprocess.run(
        [node, "-e", _SCRIPT], input=json.dumps(list(ours)), capture_output=True, text=True, timeout=HANGS_S, check=True
    )
    found = dict(zip(ours, json.loads(done.stdout), strict=True))
    return {
        domain: (meant, found[domain])
        for domain, meant in ours.items()
        if found[domain] != meant and not (found[domain] == "" and _has_new_characters(domain))
    }


def _has_new_characters(domain: str) -> bool:
    return any(each in _MAPPED_LATELY or unicodedata.category(each) == "Cn" for each in domain)
