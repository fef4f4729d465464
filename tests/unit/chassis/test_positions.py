from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.positions import Start, choose, columns

OFFSETS = st.none() | st.integers(0, 40)


def test_the_earlier_of_database_and_kafka_counts() -> None:
    """Kafka's committed offset lags a little in calm, and is far ahead after a restore of the database; nothing is skipped either way."""
    assert choose(stored=100, committed=90, first=0, end=120) == Start(90)
    assert choose(stored=40, committed=90, first=0, end=120) == Start(40)
    assert choose(stored=None, committed=90, first=0, end=120) == Start(0), "restored to before its first record"


def test_a_partition_made_anew_is_read_from_its_beginning() -> None:
    """Without a committed offset, or with a position that the partition does not reach, nothing that was known of it counts."""
    assert choose(stored=500, committed=None, first=0, end=800) == Start(0, anew=True)
    assert choose(stored=500, committed=20, first=0, end=30) == Start(0, anew=True)
    assert choose(stored=None, committed=None, first=7, end=9) == Start(7, anew=True)


def test_records_gone_before_they_were_stored_are_counted() -> None:
    """What retention or trimming took away before this database stored it is told, never passed over."""
    assert choose(stored=40, committed=90, first=60, end=120) == Start(60, gone=20)
    assert choose(stored=None, committed=10, first=60, end=120).gone == 60
    assert choose(stored=60, committed=60, first=60, end=60) == Start(60)
    assert choose(stored=60, committed=10, first=60, end=90) == Start(60), "an operator has accepted what is gone"
    assert choose(stored=40, committed=40, first=42, end=42, stored_since=41) == Start(42, gone=1), (
        "it took one too many"
    )


def test_what_was_stored_before_it_was_trimmed_is_not_gone() -> None:
    """Another replica may store and trim between our questions: what the database knows after the beginning was asked for counts."""
    assert choose(stored=40, committed=40, first=42, end=42, stored_since=42) == Start(42)
    assert choose(stored=None, committed=40, first=42, end=50, stored_since=43) == Start(42)


@given(stored=OFFSETS, committed=OFFSETS, first=st.integers(0, 40), length=st.integers(0, 40))
def test_nothing_is_ever_skipped(stored: int | None, committed: int | None, first: int, length: int) -> None:
    """Every record that is there and was not stored for certain is read, or the loss is told."""
    end = first + length
    start = choose(stored, committed, first, end)
    assert first <= start.offset <= end
    assert start.offset == first or start.offset <= min(stored or 0, committed or 0)


def test_a_batch_reaches_as_far_as_its_last_record_of_each_partition() -> None:
    """Columns are in one order, so that two replicas never lock crosswise."""
    records = [
        ConsumerRecord(topic, partition, offset, 0, 0, b"", b"", None, 0, 0, ())
        for topic, partition, offset in (("b", 1, 4), ("a", 2, 9), ("b", 0, 7), ("b", 1, 5))
    ]
    assert columns(records) == (["a", "b", "b"], [2, 0, 1], [10, 8, 6])
