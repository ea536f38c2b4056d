"""Virtual machines with real kernels in which memory really runs out, and a cgroup of this machine for a quick kill."""
