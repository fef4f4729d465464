"""All that is read of the live database."""
