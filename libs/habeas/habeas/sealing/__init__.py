"""Keys of data subjects and everything that is sealed under them.

`habeas.sealing.artefact` is imported by name where it is needed: Tink costs each process 11 MB.
"""

from habeas.sealing.errors import KekMismatch, KekMissing, KeyMissing, SealBroken, SealingError
from habeas.sealing.fingerprint import Fingerprinter
from habeas.sealing.intake_box import (
    intake_private_key,
    open_from_publisher,
    public_key_of,
    public_key_text,
    seal_to_intake,
)
from habeas.sealing.kek import EnvironmentKek, FileKek, KekProvider, KekSettings, Wrapped, new_key_ring, open_kek
from habeas.sealing.keys import KeyKind, SubjectKey, SubjectKeys
from habeas.sealing.protector import Protector
from habeas.sealing.seal import Place, open_json, open_sealed, open_text, seal, seal_json, seal_text, try_open_text
from habeas.sealing.store import Connection, KeyStore

__all__ = [
    "Connection",
    "EnvironmentKek",
    "FileKek",
    "Fingerprinter",
    "KekMismatch",
    "KekMissing",
    "KekProvider",
    "KekSettings",
    "KeyKind",
    "KeyMissing",
    "KeyStore",
    "Place",
    "Protector",
    "SealBroken",
    "SealingError",
    "SubjectKey",
    "SubjectKeys",
    "Wrapped",
    "intake_private_key",
    "new_key_ring",
    "open_from_publisher",
    "open_json",
    "open_kek",
    "open_sealed",
    "open_text",
    "public_key_of",
    "public_key_text",
    "seal",
    "seal_json",
    "seal_text",
    "seal_to_intake",
    "try_open_text",
]
