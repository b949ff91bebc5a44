"""`python -m amst_hpc`."""

from amst_hpc.cli import main

main()
