"""Benchmarks: measured, printed and kept; never asserted by the clock in a test. ``python -m tests.bench`` runs them."""
