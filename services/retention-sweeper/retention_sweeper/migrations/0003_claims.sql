-- How often an attempt was begun since one last ended with a word: work that ends its process is seen by it.

ALTER TABLE retention_sweeper.ticks ADD COLUMN claims integer NOT NULL DEFAULT 0;
ALTER TABLE retention_sweeper.sweeps ADD COLUMN claims integer NOT NULL DEFAULT 0;
