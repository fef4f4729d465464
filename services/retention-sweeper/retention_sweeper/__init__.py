"""Deletes what is past its retention."""
