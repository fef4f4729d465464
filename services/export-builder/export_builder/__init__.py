"""Reads personal data out and builds encrypted exports."""
