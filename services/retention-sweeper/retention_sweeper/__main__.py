"""The process entry of retention-sweeper."""

from habeas.chassis.process import main
from retention_sweeper.app import build
from retention_sweeper.settings import Settings

if __name__ == "__main__":
    main(Settings.load, build)
