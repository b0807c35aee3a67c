//! What a new passphrase slot costs to try: about a second on this machine.
//!
//! The memory that may be spent is what the kernel says is available, or less where the control group allows less.
//! The speed is measured with a try for nothing. Leans on `seal` for the bounds. Refuses to go below the floor,
//! whatever it reads.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::seal::{Argon2Cost, SealError};

/// The cost of a new slot.
pub(super) fn cost() -> Result<Argon2Cost, SealError> {
    // Unit tests make many slots.
    if let Some(tiny) = Argon2Cost::new(64, 1, 1).filter(|_| cfg!(test)) {
        return Ok(tiny);
    }
    let start = Instant::now();
    Argon2Cost::FLOOR.spend()?;
    Ok(Argon2Cost::fitting(available(), start.elapsed()))
}

/// Bytes of memory that a try may have, more or less. 0 if nothing tells.
fn available() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = |file: &Path| fs::read_to_string(file).ok();
    in_machine(&meminfo).unwrap_or(0).min(in_group(&groups, limit).unwrap_or(u64::MAX))
}

/// `MemAvailable` of /proc/meminfo.
fn in_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least `memory.max` of this process's control group and those above it (version 2).
fn in_group(groups: &str, limit: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = Path::new("/sys/fs/cgroup");
    let own = mount.join(group);
    let levels = own.ancestors().take_while(|level| level.starts_with(mount));
    levels.filter_map(|level| limit(&level.join("memory.max"))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_machine_and_groups_allow_counts() {
        let meminfo = "MemTotal:       24608004 kB\nMemAvailable:   2048 kB\nBuffers: 1 kB\n";
        assert_eq!(in_machine(meminfo), Some(2 << 20));
        assert_eq!(in_machine("MemAvailable: lots"), None);
        let limit = |file: &Path| match file.to_str()? {
            "/sys/fs/cgroup/system.slice/strongroomd.service/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/system.slice/memory.max" => Some("500\n".to_owned()),
            "/sys/fs/cgroup/memory.max" => Some("900\n".to_owned()),
            _ => None,
        };
        assert_eq!(in_group("1:cpu:/x\n0::/system.slice/strongroomd.service\n", limit), Some(500));
        assert_eq!(in_group("0::/\n", limit), Some(900));
        assert_eq!(in_group("1:memory:/docker/1\n", limit), None);
        assert!(available() > 0);
    }
}
