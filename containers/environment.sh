# What the image sets, as %environment of Apptainer and at the start of `entry`. Apptainer shows it nothing of the host's
# environment: what is set here replaces the host's value, what is emptied counts as not set.
export PATH=/usr/local/bin:/opt/amst-hpc/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8
# the host's Python modules, ~/.local among them
export PYTHONPATH= PYTHONHOME= PYTHONSTARTUP= PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1
# where the host's Open MPI is installed, of which its mpirun tells the ranks
export OPAL_PREFIX= PMIX_PREFIX=
# one container per rank is often one user namespace per rank, and ranks may not read each other's memory then
export OMPI_MCA_btl_vader_single_copy_mechanism=none
# mpirun in here starts ranks on this machine only and needs no ssh
export OMPI_MCA_plm_rsh_agent=
