"""The process entry of erasure-executor."""

from erasure_executor.app import build
from erasure_executor.settings import Settings
from habeas.chassis.process import main
from habeas.datamap.source import ConfigurationError

if __name__ == "__main__":
    main(Settings.load, build, ConfigurationError)
