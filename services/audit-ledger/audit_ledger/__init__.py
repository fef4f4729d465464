"""Orders, signs and publishes the audit log."""
