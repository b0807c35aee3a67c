//! The process as a whole: no core dumps, no tracing by others of the same user.
//!
//! Leans on rustix. A program's choice, not a library's: the binaries call it first thing.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process undumpable: no core files, no `ptrace` or `/proc/PID/mem` from other processes of its user.
///
/// Failures are ignored: each step only narrows what others may do, and secret memory doesn't lean on it.
pub fn harden_process() {
    _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
