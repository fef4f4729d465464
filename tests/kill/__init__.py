"""The fault campaign: a generator, a nemesis that kills and cuts, and a checker that judges from outside."""
