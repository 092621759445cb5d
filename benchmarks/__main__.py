"""`python -m benchmarks`: the benchmark of delivery."""

from benchmarks.delivery import main

main()
