"""One job on many hosts, by Ansible: who they are, what is played on them, and what has become of each."""
