"""The composition root of audit-ledger: all that it reacts to, on one screen."""

from functools import partial
from typing import Final

from audit_ledger import gateways, sweeps
from audit_ledger.handlers import Sequencer
from audit_ledger.settings import Settings
from habeas.chassis.database import Database
from habeas.chassis.follow import Follower
from habeas.chassis.service import Service
from habeas.contracts.topics import AUDIT_ENTRIES

_PUBLISH_INTERVAL_S: Final = 20.0


def build(settings: Settings) -> Service:
    """Wire audit-ledger by hand. Raises ``SigningKeyMissing`` when there is no private key that it may use."""
    signer = gateways.open_signer(settings.key_file, settings.origin, create=not settings.chassis.in_production)
    service = Service("audit-ledger", settings.chassis, protection=gateways.NothingSealed())
    directory = gateways.LogDirectory(settings.log_dir, signer.verifier)
    seat = gateways.Seat(settings.chassis.lease_s)
    look_s = settings.chassis.lease_s / 3  # several signs of life in a lease
    sequencer = Sequencer(seat, directory, settings.origin, service.stopping, look_s=look_s)

    def follow(db: Database) -> Follower:
        position, mark = partial(sequencer.position, db), partial(sequencer.mark, db)
        anew, take = partial(sequencer.anew, db), partial(sequencer.take, db)
        return Follower(AUDIT_ENTRIES, position, mark, anew, take, settings.batch_rows_max, look_s, seat.keep)

    service.prepare(directory.prepare)
    service.follow(follow)
    publishing = service.every(_PUBLISH_INTERVAL_S, sweeps.publish_checkpoint, sequencer, seat, directory, signer)
    publishing.after(AUDIT_ENTRIES).at_most_every(settings.checkpoint_interval_s)
    service.every(settings.resume_interval_s, sweeps.resume_producers)
    service.measure(sweeps.measure_log)
    service.close(seat.leave)
    return service
