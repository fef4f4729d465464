"""What can go wrong with embedded servers.

EmbeddedError
├── ServerFailed       a server ended or did not answer in time; names its log file
├── RunTaken           another living process uses the run directory of this name
├── JavaMissing        no Java of 17 or later was found
├── JarsUnavailable    jars could be neither found in the cache nor fetched, or had another checksum
├── ProvisionFailed    the database or Kafka could not be brought into the state that the fleet needs
└── FleetFailed        a service did not become ready in time
"""

from collections.abc import Iterator

__all__ = [
    "EmbeddedError",
    "FleetFailed",
    "JarsUnavailable",
    "JavaMissing",
    "ProvisionFailed",
    "RunTaken",
    "ServerFailed",
    "each_of",
]


class EmbeddedError(Exception):
    """Base of all errors of this package; the text tells a person what to do."""


class ServerFailed(EmbeddedError):
    """A server ended or did not answer in time; the text names its log file."""


class RunTaken(EmbeddedError):
    """Another living process uses the run directory of this name."""


class JavaMissing(EmbeddedError):
    """No Java of 17 or later was found."""


class JarsUnavailable(EmbeddedError):
    """Jars could be neither found in the cache nor fetched, or had another checksum than the committed one."""


class ProvisionFailed(EmbeddedError):
    """The database or Kafka could not be brought into the state that the fleet needs."""


class FleetFailed(EmbeddedError):
    """A service did not become ready in time; the text names its log file."""


def each_of(group: "BaseExceptionGroup[EmbeddedError]") -> Iterator[EmbeddedError]:
    """Return every error of a group, and of the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from each_of(error)
        else:
            yield error
