//! Who is asked whether a peer may connect: polkit, where this build has it.
//!
//! Leans on `polkit`. Refuses everyone in a build without it; the settings don't let it come to that.

use std::future::Future;
#[cfg(feature = "polkit")]
use std::sync::Arc;

#[cfg(feature = "polkit")]
use super::flood::Flood;
#[cfg(feature = "polkit")]
use super::polkit::{MANAGE, MONITOR, Polkit};
use crate::net::peer::Process;
use crate::secret::Error;

/// The one authority of a daemon.
pub(super) struct Authority {
    #[cfg(feature = "polkit")]
    polkit: Arc<Polkit>,
    /// What the log hears of those who are refused.
    #[cfg(feature = "polkit")]
    refusals: Arc<Flood>,
}

impl Authority {
    /// Connects to nothing yet.
    pub(super) fn new() -> Self {
        Self {
            #[cfg(feature = "polkit")]
            polkit: Arc::new(Polkit::new()),
            #[cfg(feature = "polkit")]
            refusals: Arc::default(),
        }
    }

    /// Whether this peer may use the socket; a person may have to answer first.
    #[cfg(feature = "polkit")]
    pub(super) fn check(
        &self,
        peer: Process,
        read_only: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let polkit = Arc::clone(&self.polkit);
        let action = if read_only { MONITOR } else { MANAGE };
        let refusals = Arc::clone(&self.refusals);
        async move {
            polkit.check(&peer, action).await.map_err(|refusal| {
                refusals
                    .warn(&format!("polkit refused {peer}, who asked for {action}: {}", refusal.for_log()));
                Error::from(refusal)
            })
        }
    }

    #[cfg(not(feature = "polkit"))]
    #[expect(clippy::unused_self, reason = "with polkit there is something in it")]
    pub(super) fn check(
        &self,
        _: Process,
        _: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        std::future::ready(Err(super::failure::unexpected_authentication()))
    }
}
