//! The sockets that the daemon listens on: made by itself, or handed over by systemd.
