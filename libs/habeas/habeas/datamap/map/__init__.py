"""The data map: its file format, its model, reading it and drafting it."""
