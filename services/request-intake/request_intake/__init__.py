"""Accepts requests of data subjects and owns their life."""
