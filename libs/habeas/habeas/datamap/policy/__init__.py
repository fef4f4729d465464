"""The policy: categories, retention, deadlines and the regimes that they come from; nothing here looks at a map or a database."""
