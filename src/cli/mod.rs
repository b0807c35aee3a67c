//! What a person types.

/// Runs the command line: parses, connects, does it, and says how it went.
pub fn main() -> std::process::ExitCode {
    unimplemented!()
}
