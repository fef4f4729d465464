"""Records altered at random."""
