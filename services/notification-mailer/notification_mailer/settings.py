"""What an operator may set for notification-mailer."""

from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, model_validator

from habeas.chassis.settings import Environment, ServiceSettings
from habeas.contracts.vocabulary import MailKind
from habeas.datamap.addresses import BadAddress, mailbox
from habeas.datamap.settings import DataMapSettings
from habeas.sealing.settings import SealingSettings
from notification_mailer.lifecycle.mails import Patience

_ADDRESS: Final = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.\-]{0,251}[A-Za-z0-9])?$"
_DOMAIN: Final = r"^[A-Za-z0-9]([A-Za-z0-9.\-]{0,251}[A-Za-z0-9])?$"


class SmtpTls(StrEnum):
    """How the connection to the mail server is protected."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class SmtpSettings(BaseModel):
    """Settings of the mail server and of the mails themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    smtp_host: str = Field(
        pattern=r"^[A-Za-z0-9.\-:]{1,253}$", description="name or IP address of the mail server that takes our mail"
    )
    smtp_port: int = Field(25, ge=1, le=65_535, description="TCP port of the mail server")
    smtp_tls: SmtpTls | None = Field(
        None,
        description="none, starttls or implicit (both TLS 1.3); without it starttls, in development none; "
        "production takes none on loopback only",
    )
    smtp_ca_file: FilePath | None = Field(
        None, description="certificates (PEM) that sign the mail server's; without it the machine's are trusted"
    )
    smtp_username: str | None = Field(None, min_length=1, max_length=255, description="user name at the mail server")
    smtp_password: SecretStr | None = Field(
        None, min_length=1, max_length=1024, description="password at the mail server"
    )
    smtp_connections_max: int = Field(20, ge=1, le=100, description="connections to the mail server kept and reused")
    smtp_connect_timeout_s: float = Field(
        30.0, ge=0.1, le=300, description="how long connecting may take, TLS included"
    )
    smtp_command_timeout_s: float = Field(
        300.0,
        ge=0.1,
        le=600,
        description="how long a reply before the final dot may take; RFC 5321 asks for five minutes",
    )
    smtp_final_timeout_s: float = Field(
        600.0,
        ge=0.1,
        le=3600,
        description="how long the reply to the final dot may take; RFC 5321 asks for ten minutes",
    )
    sender: str | None = Field(
        None,
        pattern=_ADDRESS,
        description="address that mails come from; without it the policy's data protection officer",
    )
    message_id_domain: str | None = Field(
        None, pattern=_DOMAIN, description="domain in the Message-ID of every mail; without it the sender's"
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("NOTIFICATION_MAILER_SMTP_USERNAME and …_SMTP_PASSWORD go together: set both or none")
        if self.sender is not None:
            try:
                mailbox(self.sender)
            except BadAddress as error:
                raise ValueError(f"no mail can come from NOTIFICATION_MAILER_SENDER ({error.reason})") from None
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether the mail server is on this machine."""
        try:
            return ip_address(self.smtp_host).is_loopback
        except ValueError:
            return self.smtp_host == "localhost"


class Settings(ServiceSettings):
    """Settings of notification-mailer."""

    service: ClassVar[str] = "notification-mailer"

    sealing: SealingSettings
    datamap: DataMapSettings
    smtp: SmtpSettings
    send_interval_s: float = Field(
        30.0, ge=0.05, le=60, description="how often due mails are looked for that nothing told of"
    )
    campaign_interval_s: float = Field(
        30.0, ge=0.05, le=3600, description="how often campaigns are looked after of which nothing told"
    )
    batch_mails_max: int = Field(500, ge=1, le=2_000, description="mails that are claimed at once")
    page_accounts_max: int = Field(1_000, ge=1, le=10_000, description="account holders that a campaign reads at once")
    mail_lease_s: float = Field(
        900.0,
        ge=1,
        le=86_400,
        description="how long a mail stays with a replica that went silent; above smtp_final_timeout_s",
    )
    resend_first_s: float = Field(
        2.0, ge=0.01, le=3600, description="wait before the second attempt; doubles from there"
    )
    resend_longest_s: float = Field(900.0, ge=0.01, le=86_400, description="longest wait between two attempts")
    resend_horizon_s: float = Field(
        432_000.0, ge=1, le=2_592_000, description="how long a mail is tried before it counts as refused"
    )
    resend_uncertain: tuple[MailKind, ...] = Field(
        (MailKind.ACKNOWLEDGEMENT,),
        description="kinds of mail that are sent again when the reply to the final dot was lost",
    )
    resend_uncertain_max: int = Field(
        3, ge=0, le=20, description="how often such a mail is sent again before nobody knows whether it arrived"
    )
    resend_uncertain_first_s: float = Field(
        60.0, ge=0.01, le=86_400, description="wait before it is sent again; doubles from there up to resend_longest_s"
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.mail_lease_s <= self.smtp.smtp_final_timeout_s:
            raise ValueError("NOTIFICATION_MAILER_MAIL_LEASE_S must be above NOTIFICATION_MAILER_SMTP_FINAL_TIMEOUT_S")
        if self.resend_first_s > self.resend_longest_s:
            raise ValueError("NOTIFICATION_MAILER_RESEND_FIRST_S is above NOTIFICATION_MAILER_RESEND_LONGEST_S")
        if (
            self.chassis.environment is Environment.PRODUCTION
            and self.smtp_tls is SmtpTls.NONE
            and not self.smtp.on_loopback
        ):
            raise ValueError("production refuses to send mail in plain: write NOTIFICATION_MAILER_SMTP_TLS=starttls")
        return self

    @property
    def smtp_tls(self) -> SmtpTls:
        """How the connection to the mail server is protected."""
        if self.smtp.smtp_tls is not None:
            return self.smtp.smtp_tls
        return SmtpTls.NONE if self.chassis.environment is Environment.DEVELOPMENT else SmtpTls.STARTTLS

    @property
    def patience(self) -> Patience:
        """How often and how long a mail is tried."""
        return Patience(
            timedelta(seconds=self.resend_first_s),
            timedelta(seconds=self.resend_longest_s),
            timedelta(seconds=self.resend_horizon_s),
            frozenset(self.resend_uncertain),
            self.resend_uncertain_max,
            timedelta(seconds=self.resend_uncertain_first_s),
        )
