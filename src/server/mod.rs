//! The daemon: libvirt's secret driver behind sockets.

mod args;
mod listen;
mod log;
#[cfg(feature = "polkit")]
mod polkit;
mod process;
#[cfg_attr(not(test), expect(dead_code, reason = "nobody asks for them yet"))]
mod settings;

/// Runs the daemon.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
