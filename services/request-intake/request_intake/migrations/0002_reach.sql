-- How a person can be answered, found out when the request is opened; null in requests from before it was recorded.

ALTER TABLE request_intake.requests
    ADD COLUMN reach text CHECK (reach IN ('mail', 'platform', 'not_reachable'));
