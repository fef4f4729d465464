"""The one command-line program, `habeas`."""
