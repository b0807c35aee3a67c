//! The process: pid file, detaching from the terminal, the run directory.
