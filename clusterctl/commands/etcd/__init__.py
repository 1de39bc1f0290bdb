"""``clusterctl etcd ...``."""
