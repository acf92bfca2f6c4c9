"""Where members are trained: in this and other processes of this machine, later on a cluster."""
