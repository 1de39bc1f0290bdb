"""etcd: its client, its members, its quorum and its snapshots."""
