//! The host's system token: how libvirt's daemons know one another.
