"""The process entry of notification-mailer."""

from habeas.chassis.process import main
from notification_mailer.app import build
from notification_mailer.settings import Settings

if __name__ == "__main__":
    main(Settings.load, build)
