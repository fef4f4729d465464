"""``python -m tests.bench [pipeline]``: all benchmarks that there are so far are those of the pipeline."""

from tests.bench.program import main

if __name__ == "__main__":
    main()
