"""Real Kafka, PostgreSQL and an SMTP sink as plain processes, and the fleet on top."""
