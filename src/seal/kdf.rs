//! Key derivation: HKDF-SHA256 (RFC 5869) for keys, Argon2id (RFC 9106) for passphrases.
//!
//! Leans on ring and argon2. The derived bytes go straight into secret memory; Argon2's working memory, which ring's
//! sibling crate frees as it is, is ours and wiped. Refuses Argon2 costs outside [`Argon2Cost`]'s bounds: they come
//! from disk before anything is authenticated.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::hkdf::{self, HKDF_SHA256, Prk};
use secrecy::{ExposeSecret, ExposeSecretMut};
use zeroize::Zeroize;

use super::SealError;
use super::key::KEY_LEN;
use crate::memory::{SecretBytes, scrubbed};

/// Extracts a pseudo-random key from `secret`. The caller scrubs the stack.
pub(super) fn extract(salt: &[u8], secret: &SecretBytes) -> Prk {
    hkdf::Salt::new(HKDF_SHA256, salt).extract(secret.expose_secret())
}

/// Expands 32 bytes that may be known (a commitment).
pub(super) fn expand(prk: &Prk, info: &[&[u8]]) -> [u8; KEY_LEN] {
    let mut out = [0; KEY_LEN];
    expand_into(prk, info, &mut out);
    out
}

/// Expands 32 bytes into `out`.
pub(super) fn expand_into(prk: &Prk, info: &[&[u8]], out: &mut [u8; KEY_LEN]) {
    // Neither step can fail for 32 bytes: HKDF-SHA256 gives up to 8,160, and `out` has the length asked for.
    let filled = prk.expand(info, HKDF_SHA256).and_then(|okm| okm.fill(out));
    assert!(filled.is_ok(), "HKDF-SHA256 gives 32 bytes");
}

/// What a passphrase costs to try: Argon2id's memory, passes and lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// The least that a new slot gets, however slow or small the machine.
    pub const FLOOR: Self = Self { memory_kib: FLOOR_KIB, passes: FLOOR_PASSES, lanes: 1 };

    /// The cost that takes about a second where [`FLOOR`](Self::FLOOR) took `floor_took`: as much memory as `available` bytes
    /// allow (a quarter of them), for memory is what guessing machines lack; then passes over it.
    pub fn fitting(available: u64, floor_took: Duration) -> Self {
        // A clock that stood still says nothing; this much no machine does.
        let took = floor_took.max(Duration::from_millis(10));
        let work = u128::from(FLOOR_KIB) * u128::from(FLOOR_PASSES) * TARGET.as_micros() / took.as_micros();
        let work = u32::try_from(work).unwrap_or(u32::MAX);
        let quarter = u32::try_from(available / 4 / 1024).unwrap_or(u32::MAX);
        let memory_kib = quarter.min(work / FLOOR_PASSES).clamp(FLOOR_KIB, CEILING_KIB) & !(MIB - 1);
        let passes = (work / memory_kib).clamp(FLOOR_PASSES, CEILING_PASSES);
        Self { memory_kib, passes, lanes: 1 }
    }

    /// Spends what a try at this cost takes, for nothing: to be timed.
    pub fn spend(self) -> Result<(), SealError> {
        self.derive(&SecretBytes::zeroed(KEY_LEN)?, &[0; KEY_LEN]).map(|_| ())
    }

    /// The bounds for what is read and what is made. The floor is OWASP's least (19 MiB, 2 passes).
    const MEMORY_KIB: std::ops::RangeInclusive<u32> = MEMORY_FLOOR_KIB..=(4 << 20);
    const PASSES: std::ops::RangeInclusive<u32> = 1..=64;
    const LANES: std::ops::RangeInclusive<u32> = 1..=16;

    /// These costs, if they lie within the bounds: 19 MiB to 4 GiB, 1 to 64 passes, 1 to 16 lanes.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Option<Self> {
        let within = Self::MEMORY_KIB.contains(&memory_kib)
            && Self::PASSES.contains(&passes)
            && Self::LANES.contains(&lanes)
            && memory_kib / 8 >= lanes;
        within.then_some(Self { memory_kib, passes, lanes })
    }

    /// Memory in KiB, passes, lanes.
    pub fn parts(self) -> (u32, u32, u32) {
        (self.memory_kib, self.passes, self.lanes)
    }

    /// The key that `passphrase` gives with `salt`.
    pub(super) fn derive(self, passphrase: &SecretBytes, salt: &[u8]) -> Result<SecretBytes, SealError> {
        let no_memory = SealError::NoMemory(self.memory_kib);
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_LEN)).map_err(|_| no_memory)?;
        let mut work = Vec::new();
        let blocks = params.block_count();
        work.try_reserve_exact(blocks).map_err(|_| no_memory)?;
        work.resize(blocks, Block::default());
        let mut key = SecretBytes::zeroed(KEY_LEN)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let derived = scrubbed(|| {
            let (passphrase, key) = (passphrase.expose_secret(), key.expose_secret_mut());
            argon2.hash_password_into_with_memory(passphrase, salt, key, &mut work[..])
        });
        work.iter_mut().for_each(Zeroize::zeroize);
        derived.map_err(|_| no_memory)?;
        Ok(key)
    }
}

/// One MiB, in KiB.
const MIB: u32 = 1 << 10;
/// The bounds of what is chosen for a machine: 64 MiB and 3 passes to 1 GiB and 10 passes.
const FLOOR_KIB: u32 = 64 * MIB;
const CEILING_KIB: u32 = 1024 * MIB;
const FLOOR_PASSES: u32 = 3;
const CEILING_PASSES: u32 = 10;
/// How long a try shall take.
const TARGET: Duration = Duration::from_secs(1);

/// In tests and fuzzing, a cost of 8 KiB is let through, so that they are fast.
const MEMORY_FLOOR_KIB: u32 = if cfg!(any(test, fuzzing)) { 8 } else { 19 << 10 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_outside_the_bounds_are_refused() {
        for (memory, passes, lanes) in
            [(7, 1, 1), (8 << 20, 1, 1), (64, 0, 1), (64, 65, 1), (64, 1, 17), (8, 1, 2)]
        {
            assert_eq!(Argon2Cost::new(memory, passes, lanes), None, "{memory} {passes} {lanes}");
        }
    }

    #[test]
    fn the_cost_fits_the_machine_and_stays_within_floor_and_ceiling() {
        let fitting =
            |gib: u64, millis| Argon2Cost::fitting(gib << 30, Duration::from_millis(millis)).parts();
        let mib = |mib: u32, passes| (mib << 10, passes, 1);
        assert_eq!(fitting(64, 100), mib(640, 3)); // a second's work, as much of it in memory as may be
        assert_eq!(fitting(1, 100), mib(256, 7)); // a quarter of what is there, and more passes
        assert_eq!(fitting(64, 40), mib(1024, 4));
        assert_eq!(fitting(64, 0), mib(1024, 10)); // a clock that stood still
        assert_eq!(fitting(1, 3), mib(256, 10));
        for (gib, millis) in [(64, 1_000), (64, 60_000), (0, 1_000_000)] {
            assert_eq!(fitting(gib, millis), Argon2Cost::FLOOR.parts(), "{gib} GiB, {millis} ms");
        }
        assert_eq!(Argon2Cost::fitting(u64::MAX, Duration::MAX), Argon2Cost::FLOOR);
        assert!(Argon2Cost::new(CEILING_KIB, CEILING_PASSES, 1).is_some(), "what is made can be read");
    }

    #[test]
    fn argon2id_is_rfc_9106s() {
        // The reference implementation's answer for these inputs (argon2 -id -v 13, 64 KiB, 2 passes, 1 lane).
        let passphrase = SecretBytes::copy_of(b"password").unwrap();
        let cost = Argon2Cost::new(64, 2, 1).unwrap();
        let key = cost.derive(&passphrase, b"somesaltsomesalt").unwrap();
        let hex: String = key.expose_secret().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.len(), 64);
        assert_eq!(hex, ARGON2ID_ANSWER);
    }

    const ARGON2ID_ANSWER: &str = "1a98fba8e6394425c9bdc333a9c750aaf811df070f5fb4a5788e1cf4db5793a1";
}
