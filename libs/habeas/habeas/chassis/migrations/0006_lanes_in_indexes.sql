-- A replica passes over the rows of lanes that others hold: in the index, without looking at the rows, however many wait there.

DROP INDEX inbox_pending;
CREATE INDEX inbox_pending ON inbox (inbox_id, lane) WHERE state = 'pending';

DROP INDEX outbox_unpublished;
CREATE INDEX outbox_unpublished ON outbox (outbox_id, lane) WHERE published_at IS NULL;
