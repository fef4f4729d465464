"""The process entry of export-builder."""

from export_builder.app import build
from export_builder.settings import Settings
from habeas.chassis.process import main
from habeas.datamap.source import ConfigurationError

if __name__ == "__main__":
    main(Settings.load, build, ConfigurationError)
