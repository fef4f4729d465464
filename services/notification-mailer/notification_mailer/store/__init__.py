"""Every SQL statement of notification-mailer."""
