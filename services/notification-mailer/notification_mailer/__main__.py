"""The process entry of notification-mailer."""

from habeas.chassis.process import main
from habeas.datamap.source import ConfigurationError
from notification_mailer.app import build
from notification_mailer.settings import Settings

if __name__ == "__main__":
    main(Settings.load, build, ConfigurationError)
