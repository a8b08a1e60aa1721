"""What the drivers share whose services are bare processes of this host, told by environment and cgroup."""
