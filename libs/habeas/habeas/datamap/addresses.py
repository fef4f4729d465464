"""Mail addresses: which ones SMTP can carry, and to which domain they lead.

RFC 5321 section 4.1.2, widened by RFC 6531 section 3.3, says what an address is. A domain beyond ASCII becomes A-labels by IDNA
2008 (RFC 5891) after the non-transitional mapping of UTS 46. By IDNA 2003 `straße.de` was `strasse.de`: another domain, whose
owner is a stranger.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

import idna

from habeas.contracts.vocabulary import MailRefusal

ADDRESS_OCTETS_MAX: Final = 254
"""RFC 5321 section 4.5.3.1.3: 256 octets with the angle brackets."""

LOCAL_PART_OCTETS_MAX: Final = 64
"""RFC 5321 section 4.5.3.1.1."""

TEXT_CHARACTERS_MAX: Final = LOCAL_PART_OCTETS_MAX + 1 + ADDRESS_OCTETS_MAX
"""``mailbox`` takes nothing that is longer, whatever it holds."""

# Beyond ASCII everything that UTF-8 can hold may stand in a local part, but for controls and line ends (RFC 6532 section 3.1).
_BEYOND: Final = r"\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
_ATOM: Final = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~{_BEYOND}]+"
_LOCAL_PART: Final = re.compile(rf'{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~{_BEYOND}]|\\[ -~])*"')

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
# No top-level domain is a number (RFC 3696 section 2): what ends in one is an IP address without its brackets, to some programs.
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}\.)*(?!(?:[0-9]+|0[Xx][0-9A-Fa-f]*)\Z){_LABEL}")

# UTS 46 made `ss` of the capital sharp s up to Unicode 15.0 and makes `\xdf` of it since: where such a mail would go is anybody's guess.
_AMBIGUOUS: Final = "\u1e9e"

# Most addresses are plain: ASCII, dot-atoms, letters, digits and hyphens.
_PLAIN_ATOM: Final = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"
_PLAIN: Final = re.compile(rf"(?=[^@]{{1,64}}@){_PLAIN_ATOM}(?:\.{_PLAIN_ATOM})*@{_DOMAIN.pattern}")

_IPV6_TAG: Final = "ipv6:"


class BadAddress(Exception):
    """Nothing can be mailed to an address; ``reason`` says why, and nothing repeats the address."""

    def __init__(self, reason: MailRefusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


def mailbox(text: str) -> str:
    """Return an address as it stands in an SMTP envelope: the local part unchanged, the domain in ASCII.

    Spaces and line ends around it do not count. Raise ``BadAddress`` for what SMTP does not allow, whatever the text holds.
    """
    if len(text) <= ADDRESS_OCTETS_MAX and _PLAIN.fullmatch(text):
        return text
    local, at, domain = text.strip().rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local):
        raise BadAddress(MailRefusal.ADDRESS_SYNTAX)
    if len(local.encode()) > LOCAL_PART_OCTETS_MAX or len(domain) > ADDRESS_OCTETS_MAX:
        raise BadAddress(MailRefusal.ADDRESS_TOO_LONG)
    if domain.startswith("["):
        _require_ip_address(domain)
    else:
        domain = _in_ascii(domain)
    if len(local.encode()) + 1 + len(domain) > ADDRESS_OCTETS_MAX:
        raise BadAddress(MailRefusal.ADDRESS_TOO_LONG)
    return f"{local}@{domain}"


def _in_ascii(domain: str) -> str:
    """Return a domain as letters, digits and hyphens (RFC 1123 section 2.1); one that is ASCII already stays as it is."""
    if not domain.isascii():
        if _AMBIGUOUS in domain:
            raise BadAddress(MailRefusal.ADDRESS_DOMAIN)
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True, transitional=False).decode("ascii")
        except UnicodeError:
            raise BadAddress(MailRefusal.ADDRESS_DOMAIN) from None  # the cause would quote the domain
    if not _DOMAIN.fullmatch(domain):
        raise BadAddress(MailRefusal.ADDRESS_DOMAIN)
    return domain


def _require_ip_address(literal: str) -> None:
    """Raise ``BadAddress`` for an address literal that holds no IP address (RFC 5321 section 4.1.3); other kinds have no tags yet."""
    inside = literal[1:-1]
    try:
        if not literal.endswith("]") or "%" in inside:  # a zone means nothing to another host
            raise AddressValueError
        if inside[: len(_IPV6_TAG)].lower() == _IPV6_TAG:
            IPv6Address(inside[len(_IPV6_TAG) :])
        else:
            IPv4Address(inside)
    except AddressValueError:
        raise BadAddress(MailRefusal.ADDRESS_LITERAL) from None
