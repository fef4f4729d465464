-- Messages are handled as they come, unless something of their key waits in the inbox. That is asked for every batch.

CREATE INDEX inbox_waiting ON inbox (key) WHERE state = 'pending';
