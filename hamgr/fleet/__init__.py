"""A fleet of light agents against one etcd: what many clusters cost it."""
