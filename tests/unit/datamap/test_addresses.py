"""Mail addresses: what SMTP allows, where it leads, and why the rest is refused."""

import unicodedata

import pytest

from habeas.contracts.vocabulary import MailRefusal
from habeas.datamap.addresses import BadAddress, mailbox
from tests.support.addresses import domains
from tests.support.domains import differing


def refusal(address: str) -> MailRefusal:
    """Why an address is refused; the error repeats nothing of it and has no cause that could."""
    with pytest.raises(BadAddress) as caught:
        mailbox(address)
    assert caught.value.args == (caught.value.reason.value,)
    assert caught.value.__cause__ is None
    return caught.value.reason


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.net",
        "Ann.O'Brien+tag@Example.NET",
        "a!#$%&'*+-/=?^_`{|}~b@example.net",
        '"ann at work"@example.net',
        '"a@b"@example.net',
        r'"quoted \"word\" and \\"@example.net',
        '""@example.net',
        "jörg@example.net",
        "用户@example.net",
        "ann@localhost",
        "ann@xn--ls8h.example",
        "ann@192.0.2.1.example",
        "ann@[192.0.2.1]",
        "ann@[IPv6:2001:db8::1]",
        "ann@[ipv6:::ffff:192.0.2.1]",
        "a" * 64 + "@example.net",
        "a@" + "b" * 63 + ".example",
    ],
)
def test_what_smtp_allows_stays_as_it_is(address: str) -> None:
    """RFC 5321 section 4.1.2 and 4.1.3, RFC 6531 section 3.3: dot-strings, quoted strings, UTF-8, literals."""
    assert mailbox(address) == address
    assert mailbox(f" {address}\r\n") == address


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", MailRefusal.ADDRESS_SYNTAX),
        ("nobody", MailRefusal.ADDRESS_SYNTAX),
        ("@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("a b@example.net", MailRefusal.ADDRESS_SYNTAX),
        (".a@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("a..b@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("a@b@example.net", MailRefusal.ADDRESS_SYNTAX),
        ('"a@example.net', MailRefusal.ADDRESS_SYNTAX),
        ('"a"b"@example.net', MailRefusal.ADDRESS_SYNTAX),
        ('"a\r\nRCPT TO:<b@example.net>"@example.net', MailRefusal.ADDRESS_SYNTAX),
        ("a>\r\nRCPT TO:<b@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("a\x00@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("a\x85b@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("a\u2028b@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("\ud800@example.net", MailRefusal.ADDRESS_SYNTAX),
        ("Ann <ann@example.net>", MailRefusal.ADDRESS_SYNTAX),
        ("a@", MailRefusal.ADDRESS_DOMAIN),
        ("a@b c", MailRefusal.ADDRESS_DOMAIN),
        ("a@example..net", MailRefusal.ADDRESS_DOMAIN),
        ("a@example.net.", MailRefusal.ADDRESS_DOMAIN),
        ("a@-example.net", MailRefusal.ADDRESS_DOMAIN),
        ("a@ex_ample.net", MailRefusal.ADDRESS_DOMAIN),
        ("a@192.0.2.1", MailRefusal.ADDRESS_DOMAIN),
        ("a@\uff11\uff19\uff12.0.2.1", MailRefusal.ADDRESS_DOMAIN),
        ("a@\ud800.example", MailRefusal.ADDRESS_DOMAIN),
        ("a@☕.example", MailRefusal.ADDRESS_DOMAIN),
        ("a@ü.xn--a", MailRefusal.ADDRESS_DOMAIN),
        ("a@STRAẞE.de", MailRefusal.ADDRESS_DOMAIN),  # strasse.de by Unicode 15.0, straße.de by 15.1
        ("a@example.0x7f", MailRefusal.ADDRESS_DOMAIN),
        ("a@" + "b" * 64 + ".example", MailRefusal.ADDRESS_DOMAIN),
        ("me@[mail.example.org", MailRefusal.ADDRESS_LITERAL),
        ("me@[mail.example.org]", MailRefusal.ADDRESS_LITERAL),
        ("me@[", MailRefusal.ADDRESS_LITERAL),
        ("me@[]", MailRefusal.ADDRESS_LITERAL),
        ("me@[192.0.2.256]", MailRefusal.ADDRESS_LITERAL),
        ("me@[2001:db8::1]", MailRefusal.ADDRESS_LITERAL),
        ("me@[IPv6:192.0.2.1]", MailRefusal.ADDRESS_LITERAL),
        ("me@[IPv6:fe80::1%eth0]", MailRefusal.ADDRESS_LITERAL),
        ("me@[x400:c=de]", MailRefusal.ADDRESS_LITERAL),
        ("a" * 65 + "@example.net", MailRefusal.ADDRESS_TOO_LONG),
        ("é" * 33 + "@example.net", MailRefusal.ADDRESS_TOO_LONG),
        ("a@" + ".".join(["b" * 63] * 4), MailRefusal.ADDRESS_TOO_LONG),
        ("a@" + "ü." * 200 + "example", MailRefusal.ADDRESS_TOO_LONG),
    ],
)
def test_the_rest_is_refused_for_a_reason(address: str, reason: MailRefusal) -> None:
    """Each kind of mistake has its reason, and nothing but ``BadAddress`` is raised."""
    assert refusal(address) is reason


@pytest.mark.parametrize(
    ("domain", "ascii_domain"),
    [
        ("bücher.example", "xn--bcher-kva.example"),  # RFC 3492 section 7.1 and RFC 5891
        ("straße.de", "xn--strae-oqa.de"),  # RFC 5894 section 7.2: by IDNA 2003 this was strasse.de
        ("faß.de", "xn--fa-hia.de"),  # UTS 46 section 2.3, table of deviations
        ("βόλος.com", "xn--nxasmm1c.com"),  # the same
        ("ශ්‍රී.com", "xn--10cl1a0b660p.com"),  # the same: a joiner that is part of the name
        ("نامه‌ای.com", "xn--mgba3gch31f060k.com"),  # the same: a non-joiner
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("bücher。example", "xn--bcher-kva.example"),  # UTS 46: an ideographic full stop is a dot
        ("\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.net", "example.net"),
    ],
)
def test_domains_lead_to_nobody_else(domain: str, ascii_domain: str) -> None:
    """The A-labels that the standards themselves give; what IDNA 2003 made of four of them belongs to somebody else."""
    assert mailbox(f"person@{domain}") == f"person@{ascii_domain}"


def test_another_implementation_agrees() -> None:
    """Of 20,000 domains of many scripts every one that is mailed to is the one that a browser would go to."""
    given = [each.strip() for each in domains(5891, 20_000) if not each.isascii()]
    taken: dict[str, str] = {}
    for domain in given:
        try:
            taken[domain] = mailbox(f"a@{domain}").removeprefix("a@")
        except BadAddress:
            continue
    assert len(taken) > len(given) // 10
    assert differing(taken) == {}


def test_the_domains_tried_are_of_many_scripts() -> None:
    """The comparison is of more than Latin letters: names of dozens of scripts are among them."""
    letters = {each for domain in domains(5891, 20_000) for each in domain if each.isalpha()}
    assert len({unicodedata.name(each, "?").partition(" ")[0] for each in letters}) > 30
