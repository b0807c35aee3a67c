//! The daemon's log: libvirt's outputs, filters and line format.
