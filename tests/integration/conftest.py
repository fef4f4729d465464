"""Servers for the integration tier."""

from tests.support.servers import database, empty_database, postgres_server, postgres_template, servers

__all__ = ["database", "empty_database", "postgres_server", "postgres_template", "servers"]
