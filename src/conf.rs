//! libvirt's configuration grammar: `name = value`, as all of its `*.conf` files have it.
