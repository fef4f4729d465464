"""What a platform service needs to speak to Habeas and to hear what became of it, in five lines each."""

from habeas.kit.attestation import BadAttestation, Issuer, attest, verify
from habeas.kit.follower import Copies, Follower, Told
from habeas.kit.publisher import Publisher

__all__ = ["BadAttestation", "Copies", "Follower", "Issuer", "Publisher", "Told", "attest", "verify"]
