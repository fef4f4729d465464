"""The composition root of notification-mailer: all that it reacts to, on one screen."""

from datetime import timedelta

from habeas.chassis.service import Service
from habeas.contracts.platform import PolicyChanged
from habeas.contracts.request_intake import (
    RequestAccepted,
    RequestCompleted,
    RequestDenied,
    RequestExpired,
    RequestFulfilled,
    RequestWithdrawn,
)
from habeas.datamap.addresses import mailbox
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import open_stores
from habeas.datamap.stores import Stores
from habeas.sealing import Fingerprinter, KeyStore, Protector
from notification_mailer import gateways, handlers, sweeps
from notification_mailer.lifecycle.campaigns import Notice
from notification_mailer.settings import Settings
from notification_mailer.store import messages
from notification_mailer.store.messages import Hold


def build(settings: Settings) -> Service:
    """Wire notification-mailer by hand. Raises ``ConfigurationError`` for a bad policy or map, ``KekMissing`` without a key ring."""
    kek = settings.sealing.open()
    service = Service("notification-mailer", settings.chassis, protection=Protector(kek))
    policy = load_policy(settings.datamap.policy_file)
    datamap, production = load_datamap(settings.datamap.datamap_dir, policy), settings.chassis.in_production
    stores = Stores(open_stores(datamap, policy, production=production))
    sender = mailbox(settings.smtp.sender or policy.controller.dpo)
    domain = settings.smtp.message_id_domain or sender.rpartition("@")[2]
    notice = Notice(policy.notice_of_changes, policy.zone)
    keys = gateways.CampaignKeys(kek)
    post = gateways.SmtpPost(settings.smtp, settings.smtp_tls, sender)
    room = sweeps.Mailroom(
        post=post,
        letters=gateways.Letters(policy, sender, domain),
        keys=KeyStore(kek, service.clock.now),
        campaign_keys=keys,
        audience=stores,
        notice=notice,
        patience=settings.patience,
        hold=Hold(settings.chassis.instance, timedelta(seconds=settings.mail_lease_s)),
        batch_mails_max=settings.batch_mails_max,
        stopping=service.stopping,
    )

    service.on(RequestAccepted, handlers.on_request_accepted)
    service.on(RequestFulfilled, handlers.on_request_fulfilled)
    service.on(RequestCompleted, handlers.on_request_completed)
    service.on(RequestDenied, handlers.on_request_denied)
    service.on(RequestExpired, handlers.on_request_expired)
    service.on(RequestWithdrawn, handlers.on_request_withdrawn)
    service.on(PolicyChanged, handlers.on_policy_changed, handlers.Desk(notice, keys))

    answering = service.every(settings.send_interval_s, sweeps.send_request_mails, room)
    answering.after(RequestAccepted, RequestFulfilled, sweeps.take_back_abandoned).due(messages.FIND_NEXT_DUE)
    telling = service.every(settings.send_interval_s, sweeps.send_campaign_mails, room)
    telling.after(sweeps.gather_recipients, sweeps.take_back_abandoned).due(messages.FIND_NEXT_DUE_OF_CAMPAIGNS)
    abandoned = service.every(settings.campaign_interval_s, sweeps.take_back_abandoned, room)
    abandoned.due(messages.FIND_NEXT_ABANDONED)
    gathering = service.every(
        settings.campaign_interval_s,
        sweeps.gather_recipients,
        stores,
        keys,
        Fingerprinter(kek),
        settings.page_accounts_max,
    )
    gathering.after(PolicyChanged)
    closing = service.every(settings.campaign_interval_s, sweeps.close_campaigns)
    closing.after(sweeps.gather_recipients, sweeps.send_campaign_mails, sweeps.take_back_abandoned)
    service.every(settings.campaign_interval_s, sweeps.watch_notice, notice).after(PolicyChanged)

    service.measure(sweeps.measure_waiting)

    service.close(post.close)
    service.close(stores.close)
    return service
