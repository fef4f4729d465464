-- When the next sweep is due is asked for whenever there is nothing to do; what is over is not read for it.
CREATE INDEX sweeps_due ON retention_sweeper.sweeps (next_attempt_at) WHERE state <> 'completed';
