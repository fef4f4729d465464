"""The process entry of retention-sweeper."""

from habeas.chassis.process import main
from habeas.datamap.source import ConfigurationError
from retention_sweeper.app import build
from retention_sweeper.settings import Settings

if __name__ == "__main__":
    main(Settings.load, build, ConfigurationError)
