"""Servers for the journeys."""

from tests.support.servers import database, empty_database, postgres_server, postgres_template, servers

__all__ = ["database", "empty_database", "postgres_server", "postgres_template", "servers"]
