-- A request that could not be opened has its own next attempt; null for those that were never tried.

ALTER TABLE request_intake.requests
    ADD COLUMN attempts        integer NOT NULL DEFAULT 0,
    ADD COLUMN next_attempt_at timestamptz;
