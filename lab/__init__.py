"""Virtual machines with real kernels in which memory really runs out; for the quickest kill, a cgroup of this machine."""
