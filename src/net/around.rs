//! What already protects a stream over which SASL authenticates, and what SASL must therefore add.
//!
//! Inside TLS or a Unix socket it adds nothing; on bare TCP it must encrypt, and whatever shows a password is out of the
//! question. The numbers are libvirt's. Leans on nothing. Refuses a key of fewer than 56 bits on TCP, whatever the
//! configuration says.

/// What is around SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    /// A Unix socket: the kernel alone sees what is sent.
    Unix,
    /// TLS, whose cipher has so many bits.
    Tls {
        /// The bits.
        bits: u32,
    },
    /// Nothing: bare TCP.
    Tcp {
        /// The fewest bits that SASL's own encryption must have.
        min_ssf: u32,
    },
}

/// What SASL is told to offer or to take: strengths in bits, "security strength factors".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strength {
    /// The least that its own layer must have.
    pub(crate) least: u32,
    /// The most that it may have: 0 means no layer.
    pub(crate) most: u32,
    /// What is there without it.
    pub(crate) external: u32,
    /// Whether mechanisms may show passwords to the other end. Such as know no user are never among them: where libvirt takes
    /// Cyrus' defaults, without a configuration everybody would come in as `anonymous`.
    pub(crate) plaintext: bool,
}

impl Around {
    /// TCP as a client has it: it takes what any Kerberos can do.
    pub(crate) const TCP: Self = Self::Tcp { min_ssf: LEAST };

    /// What SASL must add.
    pub(crate) fn strength(self) -> Strength {
        match self {
            Self::Unix => Strength { least: 0, most: 0, external: 0, plaintext: true },
            Self::Tls { bits } => Strength { least: 0, most: 0, external: bits, plaintext: true },
            Self::Tcp { min_ssf } => {
                Strength { least: min_ssf.max(LEAST), most: 100_000, external: 0, plaintext: false }
            }
        }
    }

    /// Whether what was agreed upon is enough.
    pub(crate) fn is_enough(self, ssf: u32) -> bool {
        match self {
            Self::Unix | Self::Tls { .. } => true,
            Self::Tcp { .. } => ssf >= LEAST,
        }
    }
}

/// As both ends of libvirt have it: a DES key, which every Kerberos could do.
const LEAST: u32 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_tcp_nothing_is_taken_that_does_not_encrypt() {
        for min_ssf in [0, 55, 56] {
            let strength = Around::Tcp { min_ssf }.strength();
            assert_eq!((strength.least, strength.plaintext), (56, false));
            assert!(!Around::Tcp { min_ssf }.is_enough(55));
        }
        assert_eq!(Around::Tcp { min_ssf: 112 }.strength().least, 112);
        assert!(Around::TCP.is_enough(56));
    }

    #[test]
    fn inside_tls_there_is_no_second_layer() {
        let strength = Around::Tls { bits: 256 }.strength();
        assert_eq!((strength.least, strength.most, strength.external), (0, 0, 256));
        assert!(Around::Tls { bits: 256 }.is_enough(0) && Around::Unix.is_enough(0));
    }
}
