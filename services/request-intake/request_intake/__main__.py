"""The process entry of request-intake."""

from habeas.chassis.process import main
from habeas.datamap.source import ConfigurationError
from request_intake.app import build
from request_intake.settings import Settings

if __name__ == "__main__":
    main(Settings.load, build, ConfigurationError)
