"""Where members are trained: in this process and others of this machine, later on a cluster's."""
