"""A tamper-evident log in public formats: RFC 6962 tree, C2SP tiles, checkpoints, notes and proofs, and its verifier."""
