"""Which settings are taken, and which are refused before anything starts."""

from pathlib import Path

import pytest

from habeas.chassis.settings import SettingsError
from habeas.contracts.vocabulary import MailKind
from notification_mailer.settings import Settings, SmtpTls


def load(tmp_path: Path, **changed: str) -> Settings:
    """Settings of a developer's machine, with changes."""
    policy = tmp_path / "policy.yaml"
    policy.touch()
    return Settings.load(
        {
            "HABEAS_ENVIRONMENT": "development",
            "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
            "HABEAS_POLICY_FILE": str(policy),
            "HABEAS_DATAMAP_DIR": str(tmp_path),
            "NOTIFICATION_MAILER_DATABASE_DSN": "postgresql://x@127.0.0.1/habeas",
            "NOTIFICATION_MAILER_SMTP_HOST": "mail.example.org",
            **changed,
        }
    )


PRODUCTION = {
    "HABEAS_ENVIRONMENT": "production",
    "HABEAS_KAFKA_TLS": "true",
    "NOTIFICATION_MAILER_DATABASE_DSN": "postgresql://x@db/habeas?sslmode=verify-full&ssl_min_protocol_version=TLSv1.3",
}


def test_development_is_plain_unless_said_otherwise(tmp_path: Path) -> None:
    """A sink on a developer's machine needs no settings but its address."""
    assert load(tmp_path).smtp_tls is SmtpTls.NONE
    assert load(tmp_path, NOTIFICATION_MAILER_SMTP_TLS="implicit").smtp_tls is SmtpTls.IMPLICIT


def test_production_is_protected_unless_on_loopback(tmp_path: Path) -> None:
    """Without a word it is STARTTLS; plain is refused, but to a relay on the same machine."""
    assert load(tmp_path, **PRODUCTION).smtp_tls is SmtpTls.STARTTLS
    with pytest.raises(SettingsError, match="SMTP_TLS=starttls"):
        load(tmp_path, **PRODUCTION, NOTIFICATION_MAILER_SMTP_TLS="none")
    local = {"NOTIFICATION_MAILER_SMTP_HOST": "127.0.0.1", "NOTIFICATION_MAILER_SMTP_TLS": "none"}
    assert load(tmp_path, **PRODUCTION, **local).smtp_tls is SmtpTls.NONE


def test_acknowledgements_alone_are_resent_by_default(tmp_path: Path) -> None:
    """The kinds are a list with commas; an empty one resends nothing."""
    assert load(tmp_path).patience.resent == {MailKind.ACKNOWLEDGEMENT}
    both = load(tmp_path, NOTIFICATION_MAILER_RESEND_UNCERTAIN="acknowledgement, outcome")
    assert both.patience.resent == {MailKind.ACKNOWLEDGEMENT, MailKind.OUTCOME}
    assert load(tmp_path, NOTIFICATION_MAILER_RESEND_UNCERTAIN="").patience.resent == frozenset()


def test_a_lease_must_outlast_the_wait_for_the_last_reply(tmp_path: Path) -> None:
    """Else another replica would call a mail uncertain while its own still waits for the reply."""
    with pytest.raises(SettingsError, match="MAIL_LEASE_S"):
        load(tmp_path, NOTIFICATION_MAILER_MAIL_LEASE_S="600")


def test_a_password_needs_a_user_name(tmp_path: Path) -> None:
    """Half a login is a mistake; the password does not show in the complaint."""
    with pytest.raises(SettingsError, match="SMTP_USERNAME") as caught:
        load(tmp_path, NOTIFICATION_MAILER_SMTP_PASSWORD="hunter2")
    assert "hunter2" not in str(caught.value)


def test_mails_come_from_an_address_that_is_one(tmp_path: Path) -> None:
    """A sender that no server would take stops the start, and not the first mail."""
    assert load(tmp_path, NOTIFICATION_MAILER_SENDER="no-reply@example.org").smtp.sender == "no-reply@example.org"
    with pytest.raises(SettingsError, match="address_syntax"):
        load(tmp_path, NOTIFICATION_MAILER_SENDER="no..reply@example.org")


def test_lost_replies_are_bounded(tmp_path: Path) -> None:
    """How often a mail in doubt is sent again, and after how long, is a setting with a limit."""
    patience = load(
        tmp_path, NOTIFICATION_MAILER_RESEND_UNCERTAIN_MAX="1", NOTIFICATION_MAILER_RESEND_LONGEST_S="90"
    ).patience
    assert (patience.doubts_max, patience.doubt_pause(1).total_seconds(), patience.doubt_pause(2).total_seconds()) == (
        1,
        60,
        90,
    )
    with pytest.raises(SettingsError):
        load(tmp_path, NOTIFICATION_MAILER_RESEND_UNCERTAIN_MAX="1000")
