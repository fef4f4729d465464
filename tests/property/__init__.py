"""Property tests: laws that hold for whatever a seed makes, each against an oracle that shares no code with what it judges."""
