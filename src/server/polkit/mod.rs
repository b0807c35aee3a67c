//! Authentication of local users by polkit, over the system bus.
//!
//! The session asks, polkit answers, with a dialog before the person if its policy wants one. Leans on zbus and
//! zbus_polkit, on the runtime that serves the sessions; the bus is connected to when it is first needed. Refuses a peer
//! that has no pid or no start time: a pid alone names whoever has it when polkit looks.
//!
//! Root isn't asked at all; that is the session's rule, not ours.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{Connection, fdo};
use zbus_polkit::policykit1::{AuthorityProxy, AuthorizationResult, CheckAuthorizationFlags, Subject};

use crate::net::peer::Process;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// The action behind the read-write socket.
pub(super) const MANAGE: &str = "org.libvirt.unix.manage";

/// The action behind the read-only socket.
pub(super) const MONITOR: &str = "org.libvirt.unix.monitor";

/// polkit, and the way to it. One for the whole daemon.
#[derive(Debug)]
pub(super) struct Polkit {
    /// `None`: the system's.
    address: Option<String>,
    /// How long reaching the bus may take.
    patience: Duration,
    bus: Mutex<Option<Connection>>,
    checks: AtomicU64,
}

/// Why a peer isn't let in. It shows itself as the detail of libvirt's message, which the code's prefix comes before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The policy says no, or the password was wrong.
    #[error("access denied by policy")]
    NotAuthorized,
    /// Somebody would have to be asked, and nobody can be.
    #[error("no polkit agent available to authenticate action '{action}'")]
    NoAgent { action: String },
    /// The person closed the dialog.
    #[error("user cancelled authentication process")]
    Cancelled,
    /// The system bus can't be reached.
    #[error("Unable to get system bus connection: {0}")]
    NoBus(String),
    /// There is no answer to be had.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// With the next step, for whoever administers the host.
    pub(super) fn for_log(&self) -> String {
        let advice = match self {
            Self::NotAuthorized => {
                "if this user is to come in, let the action through by a rule in /etc/polkit-1/rules.d (pkaction -v -a \
                 ACTION shows what holds)"
            }
            Self::NoAgent { .. } => {
                "somebody would have to type a password, and nobody can be asked: a rule in /etc/polkit-1/rules.d lets the \
                 user in without, and pkttyagent asks on a terminal"
            }
            Self::Cancelled => "the dialog was closed",
            Self::NoBus(_) => "is D-Bus running? without it, set auth_unix_rw and auth_unix_ro to \"none\"",
            Self::Failed(text) if text.contains("is not registered") => {
                "install the policy, docs/install/org.libvirt.unix.policy, into /usr/share/polkit-1/actions"
            }
            Self::Failed(text) if text.starts_with("polkit failed") => "see its log: journalctl -u polkit",
            Self::Failed(_) => return self.to_string(),
        };
        format!("{self}; {advice}")
    }
}

impl From<Refusal> for Error {
    /// With libvirt's numbers. virsh asks again after an AuthFailed, and starts an agent of its own after an AuthUnavailable.
    fn from(refusal: Refusal) -> Self {
        let (code, domain) = match &refusal {
            Refusal::NotAuthorized => (ErrorCode::AuthFailed, ErrorDomain::Polkit),
            Refusal::NoAgent { .. } => (ErrorCode::AuthUnavailable, ErrorDomain::Polkit),
            Refusal::Cancelled => (ErrorCode::AuthCancelled, ErrorDomain::Polkit),
            Refusal::NoBus(_) => (ErrorCode::InternalError, ErrorDomain::DBus),
            Refusal::Failed(_) => (ErrorCode::InternalError, ErrorDomain::Polkit),
        };
        Self::new(code, domain, refusal.to_string())
    }
}

impl Polkit {
    /// The polkit on the system bus, or on the bus that `DBUS_SYSTEM_BUS_ADDRESS` names. Connects to nothing yet.
    pub(super) fn new() -> Self {
        Self {
            address: None,
            patience: Duration::from_secs(5),
            bus: Mutex::new(None),
            checks: AtomicU64::new(1),
        }
    }

    /// Asks whether the peer may do this, and waits for the person if polkit does. Dropping the future takes the question
    /// back, and with it the dialog.
    pub(super) async fn check(&self, peer: &Process, action: &str) -> Result<(), Refusal> {
        let subject = subject(peer)?;
        let asked = match self.ask(&subject, action).await {
            // The bus was started anew, and what we had was the old one's. Once: if that fails too, something else is wrong.
            Err(Trouble::Lost(_)) => self.ask(&subject, action).await,
            asked => asked,
        };
        match asked {
            Ok(answer) => judge(&answer, action),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Err(Trouble::Lost(error)) => Err(Refusal::NoBus(error.to_string())),
        }
    }

    async fn ask(&self, subject: &Subject, action: &str) -> Result<AuthorizationResult, Trouble> {
        let bus = self.bus().await.map_err(Trouble::Refused)?;
        let polkit = AuthorityProxy::builder(&bus).cache_properties(CacheProperties::No).build().await;
        let polkit = polkit.map_err(|error| trouble(error, &bus))?;
        let id = format!("strongroom-{}", self.checks.fetch_add(1, Ordering::Relaxed));
        let mut unanswered = TakeBack { polkit: Some(polkit.clone()), id };
        let flags = CheckAuthorizationFlags::ALLOW_USER_INTERACTION;
        let answer =
            polkit.check_authorization(subject, action, &HashMap::new(), flags, &unanswered.id).await;
        unanswered.polkit = None;
        let answer = answer.map_err(|error| trouble(error, &bus));
        if matches!(answer, Err(Trouble::Lost(_))) {
            _ = bus.close().await; // for all who have it, if it isn't known to be closed yet
        }
        answer
    }

    /// The bus as we have it, or a new connection. The wait for others who are connecting counts too.
    async fn bus(&self) -> Result<Connection, Refusal> {
        let reach = async {
            let mut kept = self.bus.lock().await;
            if let Some(bus) = kept.as_ref().filter(|bus| !bus.is_closed()) {
                return Ok(bus.clone());
            }
            let builder = self.address.as_deref().map_or_else(Builder::system, Builder::address);
            Ok(kept.insert(builder.build().await?).clone())
        };
        match timeout(self.patience, reach).await {
            Ok(reached) => reached.map_err(|error: zbus::Error| Refusal::NoBus(error.to_string())),
            Err(_) => Err(Refusal::NoBus(format!("no answer within {} ms", self.patience.as_millis()))),
        }
    }
}

/// Why there is no answer.
enum Trouble {
    /// The connection ended under the question.
    Lost(zbus::Error),
    Refused(Refusal),
}

fn trouble(error: zbus::Error, bus: &Connection) -> Trouble {
    if bus.is_closed() || matches!(error, zbus::Error::InputOutput(_)) {
        return Trouble::Lost(error);
    }
    Trouble::Refused(match &error {
        zbus::Error::MethodError(name, ..) if name.as_str() == CANCELLED => Refusal::Cancelled,
        zbus::Error::MethodError(name, ..) if name.as_str() == NOT_TRUSTED => Refusal::Failed(format!(
            "polkit answers this daemon's user no questions about others; run it as root, or name its user \
             in the action's annotation org.freedesktop.policykit.owner ({error})"
        )),
        zbus::Error::FDO(fdo) if matches!(**fdo, fdo::Error::ServiceUnknown(_)) => {
            Refusal::Failed(format!("there is no polkit on the system bus; install polkitd ({error})"))
        }
        _ => Refusal::Failed(format!("polkit failed: {error}")),
    })
}

/// The peer, as polkit wants to have processes named.
fn subject(peer: &Process) -> Result<Subject, Refusal> {
    let (Some(pid), Some(started)) = (peer.pid, peer.start_time) else {
        return Err(Refusal::Failed(format!("cannot tell when the client's process started ({peer})")));
    };
    Subject::new_for_pid(pid, Some(started), Some(peer.uid))
        .map_err(|error| Refusal::Failed(format!("cannot name the client's process to polkit: {error}")))
}

fn judge(answer: &AuthorizationResult, action: &str) -> Result<(), Refusal> {
    if answer.is_authorized {
        return Ok(());
    }
    if answer.details.get("polkit.dismissed").is_some_and(|it| !it.is_empty()) {
        return Err(Refusal::Cancelled);
    }
    if answer.is_challenge {
        return Err(Refusal::NoAgent { action: action.to_owned() });
    }
    Err(Refusal::NotAuthorized)
}

/// Takes a question back that was asked and is no longer waited for.
struct TakeBack {
    polkit: Option<AuthorityProxy<'static>>,
    id: String,
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        // Without a runtime the daemon is going, its place on the bus too, and polkit drops what came from there.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if let Some(polkit) = self.polkit.take() {
            let id = std::mem::take(&mut self.id);
            runtime.spawn(async move { polkit.cancel_check_authorization(&id).await });
        }
    }
}

/// The question was taken back.
const CANCELLED: &str = "org.freedesktop.PolicyKit1.Error.Cancelled";

/// Only root and an action's owners may ask about processes of others.
const NOT_TRUSTED: &str = "org.freedesktop.PolicyKit1.Error.NotAuthorized";

#[cfg(test)]
mod tests;
