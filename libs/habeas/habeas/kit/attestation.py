"""Attestations: a platform service vouches, with Ed25519, for who made a request.

What is signed is the RFC 8785 (JCS) form of the whole message without ``attestation.signature``, so a signature fits one message and no
other, whatever the order and spacing of its JSON.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class BadAttestation(ValueError):
    """The signature does not belong to this message."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A platform service that vouches for people; its public key is registered in ``policy.yaml``."""

    name: str
    key_id: str
    private_key: Ed25519PrivateKey = field(repr=False)


def attest(message: Mapping[str, Any], private_key: Ed25519PrivateKey) -> dict[str, Any]:
    """Give the message, which must hold an ``attestation`` without signature, with its signature."""
    attestation = {**message["attestation"], "signature": _text(private_key.sign(_signed_form(message)))}
    return {**message, "attestation": attestation}


def verify(value: bytes, public_key: Ed25519PublicKey) -> None:
    """Check the signature of a message as it came. Raises ``BadAttestation``."""
    message = json.loads(value)
    try:
        text = message["attestation"]["signature"]
        signature = urlsafe_b64decode(text + "==")
        if _text(signature) != text:  # the decoder passes over foreign characters and spare bits
            raise InvalidSignature
        public_key.verify(signature, _signed_form(message))
    except (InvalidSignature, KeyError, TypeError, ValueError) as error:
        fault = "the signature does not fit the message"
        raise BadAttestation(fault) from error


def _signed_form(message: Mapping[str, Any]) -> bytes:
    unsigned = {key: value for key, value in message["attestation"].items() if key != "signature"}
    return rfc8785.dumps({**message, "attestation": unsigned})


def _text(signature: bytes) -> str:
    return urlsafe_b64encode(signature).rstrip(b"=").decode()
