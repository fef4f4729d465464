"""``python -m tests.bench [pipeline|mails …]``: the named benchmarks, or all that there are so far."""

from tests.bench.program import main

if __name__ == "__main__":
    main()
