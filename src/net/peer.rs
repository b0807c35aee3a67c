//! The process at the other end of a Unix socket.
