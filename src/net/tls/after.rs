//! What may come beside data once the handshake is over: session tickets, KeyUpdates, alerts.
//!
//! Messages may be split over records and may share one; this reads them byte by byte and keeps nothing but where it is. Leans
//! on nothing. Refuses everything that only a handshake has, and a KeyUpdate that doesn't end its record (RFC 8446, 5.1).

use crate::net::layer::Broken;

/// Where in a handshake message we are.
pub(super) struct Message {
    /// Whether the other end may send tickets: it is a server.
    tickets: bool,
    head: [u8; 4],
    /// As many bytes of the head are there.
    have: usize,
    /// As many bytes of a ticket are still to come.
    skip: usize,
}

/// What a KeyUpdate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// That the other end's keys are new from here on.
    Nothing,
    /// That ours are to be new as well.
    ForOurs,
}

impl Message {
    pub(super) fn new(tickets: bool) -> Self {
        Self { tickets, head: [0; 4], have: 0, skip: 0 }
    }

    /// Whether there is one whose end hasn't come.
    pub(super) fn has_begun(&self) -> bool {
        self.have > 0 || self.skip > 0
    }

    /// Reads on, through one record's content. `Some`: a KeyUpdate ended it.
    pub(super) fn read(&mut self, mut content: &[u8]) -> Result<Option<Asked>, Broken> {
        if content.is_empty() {
            return Err(Broken::Malformed("an empty handshake record"));
        }
        while let Some((&byte, rest)) = content.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(content.len());
                self.skip -= skipped;
                content = &content[skipped..];
                continue;
            }
            content = rest;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = byte;
                self.have += 1;
                if self.have == self.head.len() {
                    self.judge()?;
                }
                continue;
            }
            // The one byte of a KeyUpdate.
            self.have = 0;
            return match (byte, content) {
                (0, []) => Ok(Some(Asked::Nothing)),
                (1, []) => Ok(Some(Asked::ForOurs)),
                _ => Err(Broken::Malformed("a KeyUpdate that is none")),
            };
        }
        Ok(None)
    }

    /// Whether the message whose head is there may come.
    fn judge(&mut self) -> Result<(), Broken> {
        let [what, length @ ..] = self.head;
        let length = length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        match what {
            NEW_SESSION_TICKET if self.tickets && length <= MAX_TICKET => {
                (self.skip, self.have) = (length, 0);
                Ok(())
            }
            KEY_UPDATE if length == 1 => Ok(()),
            _ => Err(Broken::Malformed("a handshake message that may not come after the handshake")),
        }
    }
}

/// What an alert means. `Ok`: it means nothing.
pub(super) fn alert(content: &[u8]) -> Result<(), Broken> {
    let &[_, what] = content else { return Err(Broken::Malformed("a TLS alert that is none")) };
    Err(match what {
        0 => Broken::Closed,
        // It is said before closing, and says no more than that.
        90 => return Ok(()),
        10 => Broken::Malformed("the other end has met an unexpected TLS message (alert 10)"),
        20 => Broken::Malformed("a TLS record did not open at the other end (alert 20)"),
        40 => Broken::Malformed("the other end refuses the TLS handshake (alert 40)"),
        42 => Broken::Malformed("the other end calls our certificate bad (alert 42)"),
        43 => Broken::Malformed("the other end doesn't support certificates like ours (alert 43)"),
        44 => Broken::Malformed("the other end says that our certificate is revoked (alert 44)"),
        45 => Broken::Malformed("the other end says that our certificate is expired (alert 45)"),
        46 => Broken::Malformed("the other end doesn't accept our certificate (alert 46)"),
        48 => Broken::Malformed("the other end doesn't know the CA of our certificate (alert 48)"),
        49 => Broken::Malformed("the other end denies access to our certificate (alert 49)"),
        51 => Broken::Malformed("the other end could not check our part of the handshake (alert 51)"),
        80 => Broken::Malformed("the other end has a fault of its own (alert 80)"),
        116 => Broken::Malformed("the other end wants a certificate from us (alert 116)"),
        _ => Broken::Malformed("the other end has ended TLS with an alert"),
    })
}

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// Lifetime, age, nonce, ticket, extensions: the longest that each of them can be.
const MAX_TICKET: usize = 4 + 4 + 1 + 255 + 2 + 65_535 + 2 + 65_535;
