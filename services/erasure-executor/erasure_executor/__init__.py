"""Erases, anonymises and rectifies personal data, destroys keys, and proves it."""
