"""What makes a process a service."""
