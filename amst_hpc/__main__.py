"""`python -m amst_hpc`."""

from amst_hpc.cli.app import main

main()
