"""The process entry of audit-ledger."""

from audit_ledger.app import build
from audit_ledger.settings import Settings
from habeas.chassis.process import main

if __name__ == "__main__":
    main(Settings.load, build)
