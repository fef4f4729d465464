"""Sends mail, once."""
