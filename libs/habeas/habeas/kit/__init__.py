"""The publisher kit: what a platform service needs to speak to Habeas, in five lines."""

from habeas.kit.attestation import BadAttestation, Issuer, attest, verify
from habeas.kit.publisher import Publisher

__all__ = ["BadAttestation", "Issuer", "Publisher", "attest", "verify"]
